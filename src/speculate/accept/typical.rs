//! `typical`: typical acceptance (Medusa, arXiv 2401.10774). Keep x if p(x) > min(ε, α exp(−H(p))). Keeps no state.
//!
//! Lossy: what is kept is the longest branch of which every token is typical (of equals the one of the largest Σ ln p), not
//! a sample, so a draft steers the text: tokens of middling probability are written as often as they are drafted. Only the
//! token after the draft is the target's own sample. At temperature 0 a row is one token, and the text is the greedy one.

use super::top_down::whole_row;
use super::{AcceptanceRule, Chance, Exactness, ProposalKind};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::outcome::{Needs, Row, Verdict};
use crate::speculate::tree::{NodeId, TokenTree};

/// Keeps the logarithm finite, as in the published code.
const INSIDE_LOG: f64 = 1e-5;

/// This method.
pub static METHOD: Method = Method {
    name: "typical",
    paper: "Medusa, arXiv 2401.10774",
    about: "lossy: keep drafts that are not too unlikely for the entropy of their row",
    needs: "p",
    options: &[
        OptionSpec {
            key: "typical_epsilon",
            about: "probability above which a token is always kept",
            default: 0.3,
            min: 0.0,
            max: 1.0,
        },
        OptionSpec {
            key: "typical_alpha",
            about: "share of exp(-entropy) above which a token is kept",
            default: 0.09,
            min: 0.0,
            max: 1.0,
        },
    ],
    test: "accept::typical",
    make: Make::Accept(
        |setup| {
            let (epsilon, alpha) = (setup.option("typical_epsilon"), setup.option("typical_alpha"));
            Ok(Box::new(Typical { epsilon, alpha }))
        },
        Exactness::Heuristic,
    ),
};

/// The rule and its thresholds.
#[derive(Debug, Clone, Copy)]
pub struct Typical {
    /// ε: probability above which a token is always kept.
    pub epsilon: f64,
    /// α: share of exp(−H) above which a token is kept.
    pub alpha: f64,
}

impl Typical {
    fn threshold(&self, row: &[f64]) -> f64 {
        let entropy = -row.iter().filter(|&&p| p > 0.0).map(|p| p * (p + INSIDE_LOG).ln()).sum::<f64>();
        self.epsilon.min(self.alpha * (-entropy).exp())
    }
}

impl AcceptanceRule for Typical {
    fn method(&self) -> &'static Method {
        &METHOD
    }

    fn needs(&self) -> Needs {
        Needs { p: true, ..Needs::default() }
    }

    fn supports(&self, _: ProposalKind) -> bool {
        true
    }

    fn verify(&mut self, tree: &TokenTree, rows: &[Row], _: &mut dyn Chance) -> Verdict {
        // Σ ln p of the kept paths; parents come before their children.
        let mut kept: Vec<Option<f64>> = vec![None; tree.nodes().len()];
        kept[0] = Some(0.0);
        let mut best = NodeId::ROOT;
        for at in tree.ids() {
            let Some(above) = kept[at.index()].filter(|_| !tree.node(at).slots.is_empty()) else { continue };
            let row = whole_row(rows, at);
            let threshold = self.threshold(row);
            for slot in &tree.node(at).slots {
                let token = tree.node(slot.child).token;
                let p = token.and_then(|token| row.get(token as usize)).copied().unwrap_or(0.0);
                if p > threshold && kept[slot.child.index()].is_none() {
                    let (score, depth) = (above + p.ln(), tree.node(slot.child).depth);
                    kept[slot.child.index()] = Some(score);
                    let (best_score, best_depth) = (kept[best.index()].unwrap_or(0.0), tree.node(best).depth);
                    if depth > best_depth || (depth == best_depth && score > best_score) {
                        best = slot.child;
                    }
                }
            }
        }
        Verdict { path: tree.path(best), next: rows[best.index()].sample }
    }
}

#[cfg(test)]
mod tests {
    use super::super::residual::{Draft, total_variation};
    use super::super::testing::{random_row, rows};
    use super::*;
    use crate::speculate::chance::KeyedChance;
    use crate::speculate::drafters::DrafterId;
    use crate::speculate::tree::{Candidate, DraftStats};

    fn verify(rule: Typical, tree: &TokenTree, all: &[&[f64]]) -> Verdict {
        let rows = rows(all.iter().map(|row| (*row).into()));
        { rule }.verify(tree, &rows, &mut KeyedChance::new(0, 0))
    }

    const RULE: Typical = Typical { epsilon: 0.3, alpha: 0.09 };

    #[test]
    fn keeps_what_is_typical_though_the_target_sampled_another() {
        let flat = [0.25; 4];
        let sharp = [0.98, 0.01, 0.01, 0.0];
        let tree = TokenTree::chain(9, &[3, 0, 1], DrafterId(0));
        // α e^-H: 0.0225 of the flat row, 0.08 of the sharp one, whose token 1 is too unlikely.
        let verdict = verify(RULE, &tree, &[&flat, &sharp, &sharp, &flat]);
        assert_eq!((verdict.path.len(), verdict.next), (2, 99), "no draft was the sample, which is 99 everywhere");
    }

    #[test]
    fn the_longest_branch_wins_and_of_equals_the_likelier() {
        let mut tree = TokenTree::new(9);
        let mut add = |at, token| {
            tree.attach(at, &Candidate::new(token, DraftStats::of_probability(0.5)), DrafterId(0)).expect("room").0
        };
        let (a, b, _) = (add(NodeId::ROOT, 0), add(NodeId::ROOT, 1), add(NodeId::ROOT, 2));
        let (under_a, under_b) = (add(a, 0), add(b, 0));
        let row = [0.2, 0.3, 0.5, 0.0];
        let all: [&[f64]; 6] = [&row; 6];
        assert_eq!(verify(RULE, &tree, &all).path, [b, under_b]);
        let zero = [0.0, 0.5, 0.5, 0.0];
        assert_eq!(verify(RULE, &tree, &[&row, &row, &zero, &row, &row, &row]).path, [a, under_a]);
    }

    #[test]
    fn at_temperature_0_it_is_greedy_and_a_larger_epsilon_keeps_less() {
        let one_hot = |token: usize| (0..4).map(|at| f64::from(u8::from(at == token))).collect::<Vec<_>>();
        let tree = TokenTree::chain(9, &[2, 1], DrafterId(0));
        let verdict = verify(RULE, &tree, &[&one_hot(2), &one_hot(1), &one_hot(3)]);
        assert_eq!(verdict.path.len(), 2);
        let verdict = verify(RULE, &tree, &[&one_hot(2), &one_hot(0), &one_hot(3)]);
        assert_eq!(verdict.path.len(), 1, "only the argmax is kept");
        let kept = |epsilon: f64| -> usize {
            let rows = (0..200).map(|row| random_row([5, 0, row], 4));
            let counts =
                rows.map(|row| row.iter().filter(|&&p| p > Typical { epsilon, alpha: 1.0 }.threshold(&row)).count());
            counts.sum()
        };
        let all: Vec<usize> = [0.01, 0.1, 0.3, 0.6, 1.0].map(kept).to_vec();
        assert!(all.windows(2).all(|pair| pair[1] <= pair[0]) && all[4] < all[0] / 2, "{all:?}");
    }

    #[test]
    fn a_drafter_of_the_likeliest_token_moves_the_text_by_all_the_others() {
        let row = [0.5, 0.3, 0.2, 0.0];
        let tree = TokenTree::chain(9, &[0], DrafterId(0));
        assert_eq!(verify(RULE, &tree, &[&row, &row]).path.len(), 1, "kept whatever the target sampled");
        assert_eq!(total_variation(&row, &Draft::Point(0)), 0.5);
    }
}
