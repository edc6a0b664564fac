//! A model on a device: its configuration, its weights, and the recorded passes of its decoder.

pub mod config;
pub mod decoder;
pub mod kv;
pub mod loader;
pub mod memory;
pub mod tensors;

pub use config::ModelConfig;
pub use decoder::Model;
pub use memory::MemoryPlan;
