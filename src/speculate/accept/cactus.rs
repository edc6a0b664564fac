//! `cactus`: acceptance under a divergence budget δ (Cactus; its published code at 3b01b81). With h(x) = min(1, p(x) +
//! √(2δ p(x)(1 − p(x)))) of the drafted x, keep it with min(1, h(x)/q(x)), else draw from (h − q)+, where the other tokens
//! share what is left: h(y) = p(y)(1 − h(x))/(1 − p(x)). Keeps no state.
//!
//! Lossy within a bound: given the draft x, what is written follows h, and χ²(h‖p) ≤ 2δ, so KL(h‖p) ≤ ln(1 + 2δ) at every
//! drafted token. The text over all drafts is *not* within δ of the target: a drafter that always proposes the same rare
//! token gets it written more often everywhere. δ = 0 is speculative sampling, and at temperature 0 nothing changes.
//!
//! Of siblings only the first is favoured; the others take the strict test on what it left, which keeps the bound.

use super::residual::{Draft, Residual};
use super::top_down::{LocalSolver, Sibling, TopDown, ratio_test};
use super::{Chance, Exactness};
use crate::speculate::chance::{Key, Purpose};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::NodeId;

/// This method.
pub static METHOD: Method = Method {
    name: "cactus",
    paper: "Cactus: constrained acceptance speculative sampling",
    about: "lossy within a bound: drafts are favoured as far as KL <= ln(1 + 2 delta) a drafted token allows",
    needs: "p, q",
    options: &[OptionSpec {
        key: "cactus_delta",
        about: "divergence budget of a drafted token, nats; 0 is exact",
        default: 1.0,
        min: 0.0,
        max: 100.0,
    }],
    test: "accept::cactus",
    make: Make::Accept(
        |setup| Ok(Box::new(TopDown(Cactus { delta: setup.option("cactus_delta") }))),
        Exactness::Bounded,
    ),
};

/// The rule of [`TopDown`].
#[derive(Debug, Clone, Copy)]
pub struct Cactus {
    /// Divergence budget of a drafted token.
    pub delta: f64,
}

impl Cactus {
    /// h(x) from p(x).
    fn favoured(&self, p: f64) -> f64 {
        (p + (2.0 * self.delta * p * (1.0 - p)).max(0.0).sqrt()).clamp(0.0, 1.0)
    }
}

impl LocalSolver for Cactus {
    const METHOD: &'static Method = &METHOD;

    fn solve(
        &mut self,
        at: NodeId,
        siblings: &[Sibling<'_>],
        row: &mut Residual<'_>,
        chance: &mut dyn Chance,
    ) -> Option<usize> {
        let first = siblings.first()?;
        let q = Draft::alone(first);
        let p = row.prob(first.token);
        let h = self.favoured(p);
        if chance.bernoulli(Key::new(at, 0, Purpose::Accept), q.ratio(first.token, h)) {
            return Some(0);
        }
        let others = if p < 1.0 { (1.0 - h) / (1.0 - p) } else { 0.0 };
        row.update(|token, p| if token == first.token as usize { h } else { p * others } - q.prob(token as u32));
        (1..siblings.len())
            .find(|&index| ratio_test(at, index, &siblings[index], &Draft::among(siblings, index), row, chance))
    }
}

#[cfg(test)]
mod tests {
    use super::super::residual::kullback_leibler;
    use super::super::swor::Swor;
    use super::super::testing::{Toy, law, mean_length, rows, token_law};
    use super::*;
    use crate::speculate::accept::ProposalKind::{Sampled, SampledWor};
    use crate::speculate::drafters::DrafterId;
    use crate::speculate::tree::{Distribution, TokenTree};

    const DELTAS: [f64; 6] = [0.0, 0.05, 0.2, 0.5, 1.0, 2.0];

    /// KL(h‖p) given the draft x: what is written given the draft is h, as a point mass shows.
    fn cost(p: &Distribution, x: u32, delta: f64) -> f64 {
        let tree = TokenTree::chain(0, &[x], DrafterId(0));
        let h =
            token_law(&tree, &law(&mut TopDown(Cactus { delta }), &tree, &rows([p.clone(), p.clone()].into_iter())));
        kullback_leibler(&h, &Draft::Row { q: p, mass: 1.0 })
    }

    #[test]
    fn a_drafted_token_costs_no_more_than_the_bound_and_uses_it() {
        let toy = Toy::new(10);
        for delta in DELTAS {
            let bound = (2.0 * delta).ln_1p();
            for row in 0..64 {
                let p = toy.p(row);
                for x in (0..4).filter(|&x| p[x as usize] > 0.0) {
                    let kl = cost(&p, x, delta);
                    assert!(kl <= bound + 1e-9, "{kl} above {bound} at {delta}");
                }
            }
            // Where h is just 1 the bound is met.
            let p = 1.0 / (1.0 + 2.0 * delta);
            let kl = cost(&[p, 0.7 * (1.0 - p), 0.3 * (1.0 - p), 0.0].into(), 0, delta);
            assert!((kl - bound).abs() < 1e-9, "{kl}, {bound}");
        }
    }

    #[test]
    fn without_a_budget_it_is_the_strict_rule() {
        let toy = Toy::new(11);
        for row in 0..30 {
            let q = toy.q(row);
            let x = (0..4).find(|&x| q[x as usize] > 0.0).expect("some token");
            let y = (x + 1..4).find(|&y| q[y as usize] > 0.0).map(|y| (y, SampledWor));
            let drawn: Vec<_> = [Some((x, SampledWor)), y].into_iter().flatten().collect();
            let tree = toy.siblings(&drawn, row);
            let rows = toy.rows(&tree, row);
            let ours = token_law(&tree, &law(&mut TopDown(Cactus { delta: 0.0 }), &tree, &rows));
            let strict = token_law(&tree, &law(&mut TopDown(Swor), &tree, &rows));
            assert!(ours.iter().zip(strict).all(|(a, b)| (a - b).abs() < 1e-12));
        }
    }

    #[test]
    fn more_budget_keeps_more() {
        let toy = Toy::new(12);
        let length = |delta: f64| -> f64 {
            let rows = (0..30).flat_map(|row| (0..4).map(move |x| (row, x)));
            rows.filter(|&(row, x)| toy.q(row)[x as usize] > 0.0)
                .map(|(row, x)| {
                    let tree = toy.siblings(&[(x, Sampled)], row);
                    toy.q(row)[x as usize] * mean_length(&mut TopDown(Cactus { delta }), &tree, &toy.rows(&tree, row))
                })
                .sum()
        };
        let all = DELTAS.map(length);
        assert!(all.windows(2).all(|pair| pair[1] > pair[0] + 1e-3), "{all:?}");
    }
}
