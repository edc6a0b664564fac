//! The heart: one loop, a few plain data types, and small traits; every published method is one small file behind one of
//! them.
//!
//! | trait | folder | asks |
//! |---|---|---|
//! | [`drafters::Drafter`] | `drafters/` | where do candidate tokens come from? |
//! | [`length::LengthPolicy`] | `length/` | how much to draft; 0 means a plain step |
//! | [`accept::AcceptanceRule`] | `accept/` | what is kept |

pub mod accept;
pub mod config;
pub mod drafters;
pub mod length;
pub mod outcome;
pub mod round;
pub mod tree;

pub use config::SpeculationConfig;
pub use round::Speculator;
