//! `cascade`: drafters in the order of the configuration; the first with something to offer drafts (SAM-Decoding, Hierarchy
//! Drafting). Keeps no state.

use super::{DraftSelector, DrafterInfo, Selection};
use crate::speculate::length::Signals;
use crate::speculate::methods::{Make, Method};

/// This method.
pub static METHOD: Method = Method {
    name: "cascade",
    paper: "SAM-Decoding, arXiv 2411.10666; Hierarchy Drafting, arXiv 2502.05609",
    about: "drafters in their order; the first with something to offer drafts",
    needs: "",
    options: &[],
    test: "select::cascade",
    make: Make::Select(|_| Ok(Box::new(Cascade))),
};

/// The order of the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cascade;

impl DraftSelector for Cascade {
    fn name(&self) -> &'static str {
        "cascade"
    }

    fn select(&mut self, _: &Signals<'_>, drafters: &[DrafterInfo]) -> Selection {
        Selection::First(drafters.iter().map(|drafter| drafter.id).collect())
    }
}
