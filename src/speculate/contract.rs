//! The exactness contract: a combination of parts that would silently lose what the acceptance rule promises is refused
//! before it runs, by name and with the remedy (methods.md §1.3 and §3.5).
//!
//! Point masses may be cut, ranked and dropped freely, since they depend on nothing but the prefix. What was *sampled* may
//! not: looking at a draw and then not showing it to the rule changes the distribution. Of the seven known ways to break
//! exactness, five are refused here; that a duplicate keeps its slot is seen to by [`super::tree::TokenTree::attach`], and
//! that a low-confidence draw is kept by the order of the calls in [`super::round`].

use super::accept::ProposalKind;
use super::round::Parts;
use crate::error::{Error, Result};

/// Refuses parts that do not go together.
pub fn check(parts: &Parts) -> Result<()> {
    let rule = &parts.rule;
    // Host drafters give point masses; a device drafter draws as the rule says where that needs q.
    let samples = rule.needs().q && parts.drafters.iter().any(|drafter| drafter.on_device());
    let host = parts.drafters.iter().any(|drafter| !drafter.on_device());
    let accept = format!("accept={}", rule.name());
    let refuse = |other: String, reason: &str, remedy: &str| {
        Err(Error::Inexact {
            combination: format!("{accept} with {other}"),
            reason: reason.to_owned(),
            remedy: remedy.to_owned(),
        })
    };
    if host && !rule.supports(ProposalKind::Deterministic) {
        let names: Vec<_> = parts.drafters.iter().filter(|d| !d.on_device()).map(|d| d.name()).collect();
        return refuse(
            format!("drafter={}", names.join("+")),
            "the rule is exact for sampled drafts only, and these are point masses",
            "use accept=match, or only drafters that sample (drafter=model)",
        );
    }
    if !samples {
        return Ok(());
    }
    if !rule.supports(rule.draws()) {
        return refuse(format!("{:?} drafts", rule.draws()), "the rule is not exact for them", "use accept=traversal");
    }
    if parts.length.looks_ahead() {
        return refuse(
            format!("length={}", parts.length.name()),
            "it cuts a sampled draft after having looked past the cut, so it is not a stopping time",
            "use accept=match, or a policy that stops as it drafts (length=fixed, survival, threshold)",
        );
    }
    if parts.shape.prunes() {
        return refuse(
            format!("tree={}", parts.shape.name()),
            "it drops drafted nodes by their probability, which with sampled ones changes the distribution",
            "use accept=match, or a shape that only grows (tree=chain, static, delayed)",
        );
    }
    if parts.shape.adapts_width() && rule.fixed_width() {
        return refuse(
            format!("tree={}", parts.shape.name()),
            "the number of siblings must not depend on earlier draws",
            "use a shape of fixed widths (tree=chain, static, sequoia), or accept=traversal",
        );
    }
    if parts.selector.looks_at_drafts() {
        return refuse(
            format!("select={}", parts.selector.name()),
            "it chooses by the confidence of tokens that were just sampled",
            "use accept=match, or a selector that looks at past rounds only (select=cascade, hedge, bandit)",
        );
    }
    Ok(())
}
