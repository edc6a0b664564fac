//! `self`: the target's own first N layers, its final norm and its head draft (LayerSkip, Elhoushi et al., arXiv
//! 2404.16710, with no trained head; Draft & Verify, arXiv 2309.08168).
//!
//! Same weights, same KV cache: what the exit wrote for a drafted token's first layers is written again by the verify pass,
//! bit for bit. It takes no memory of its own. State: none beyond the round.

use super::model::DraftModel;
use super::passes::Passes;
use crate::speculate::methods::{Make, Method, OptionSpec};
use std::rc::Rc;

/// This method.
pub static METHOD: Method = Method {
    name: "self",
    paper: "LayerSkip, arXiv 2404.16710; Draft & Verify, arXiv 2309.08168",
    about: "the target's own first layers with its head, over the same cache",
    needs: "nothing; drafts well only with models trained for early exits",
    options: &[OptionSpec {
        key: "self_layers",
        about: "layers to run; 0 takes two thirds",
        default: 0.0,
        min: 0.0,
        max: 1024.0,
    }],
    test: "tests/sameness.rs: the_target_drafts_for_itself",
    make: Make::Drafter(|setup| {
        let passes = Passes::of_target(Rc::clone(setup.exit_model()?), setup.kv_view()?);
        Ok(Box::new(DraftModel { name: "self", passes }))
    }),
};
