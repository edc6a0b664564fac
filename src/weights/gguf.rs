//! The GGUF container, v2 and v3, read in order.
