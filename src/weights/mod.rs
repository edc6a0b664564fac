//! Model files: the GGUF container, its metadata, and quantised block formats.

pub mod decode;
pub mod format;
pub mod gguf;
pub mod metadata;
pub mod repack;
