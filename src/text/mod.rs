//! From messages to tokens and back: chat template, tokenizer, detokenizer, stop strings.

pub mod detokenizer;
pub mod stop;
pub mod template;
pub mod tokenizer;
