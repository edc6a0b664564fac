//! foredraft runs quantised language models on the user's own GPU, in a browser tab or natively, and makes them fast by
//! speculative decoding, without changing a single token of what they say.
//!
//! Rooms, ground floor first; a room imports only from those above it in this list:
//! [`error`], [`runtime`], [`store`] · [`weights`], [`text`], [`sampling`] · [`plan`] · [`gpu`], [`cpu`] · [`model`] ·
//! [`speculate`] · [`device`], [`engine`], [`session`], [`generation`], [`summary`], [`perplexity`], [`bench`] · the edges (`main.rs`, `web.rs`).

pub mod bench;
pub mod cpu;
pub mod device;
pub mod engine;
pub mod error;
pub mod generation;
pub mod gpu;
pub mod model;
pub mod perplexity;
pub mod plan;
pub mod probe;
pub mod runtime;
pub mod sampling;
pub mod session;
pub mod speculate;
pub mod store;
pub mod summary;
pub mod text;
#[cfg(target_arch = "wasm32")]
pub mod web;
pub mod weights;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
