//! What part of its cache a draft model looks at. The target always sees all of it when it verifies, so every view is exact:
//! it is part of the drafter.

pub mod full;
pub mod window;

/// Positions that a draft pass sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvView {
    /// First positions that are always seen.
    pub sink: u32,
    /// Last positions that are seen; 0 sees all.
    pub window: u32,
}
