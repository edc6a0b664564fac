//! The heart: one loop, a few plain data types, and small traits; every published method is one small file behind one of
//! them ([`methods::METHODS`] lists them).
//!
//! | trait | folder | asks |
//! |---|---|---|
//! | [`drafters::Drafter`] | `drafters/` | where do candidate tokens come from? |
//! | [`length::LengthPolicy`], [`length::AcceptanceEstimator`] | `length/` | how much to draft; 0 means a plain step |
//! | [`shapes::TreeShape`] | `shapes/` | which leaves grow, how wide |
//! | [`accept::AcceptanceRule`] | `accept/` | what is kept |
//! | [`select::DraftSelector`] | `select/` | which drafters this round |

pub mod accept;
pub mod chance;
pub mod config;
pub mod constraint;
pub mod contract;
pub mod cost;
pub mod drafters;
pub mod kv;
pub mod length;
pub mod measure;
pub mod memory;
pub mod methods;
pub mod outcome;
pub mod round;
pub mod select;
pub mod shapes;
pub mod simulate;
pub mod target;
pub mod tree;

pub use config::SpeculationConfig;
pub use constraint::Constraint;
pub use round::Speculator;
