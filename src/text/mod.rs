//! From messages to tokens and back: chat template, tokenizer, detokenizer, stop strings.
//!
//! Down: [`messages`] checks OpenAI messages, [`template`] renders them, [`tokenizer`] makes tokens of the text
//! ([`vocabulary`] holds the tokens, [`pieces`] the byte-level models' splits, [`merges`] the merge table). Up:
//! [`sliding`] leaves out old turns where they do not fit. [`detokenizer`] makes whole characters of the tokens' bytes,
//! [`stop`] looks for stop strings, [`grammar`] says which tokens a JSON schema allows.

pub mod detokenizer;
pub mod grammar;
mod merges;
pub mod messages;
mod pieces;
pub mod sliding;
pub mod stop;
pub mod template;
pub mod tokenizer;
pub mod vocabulary;
