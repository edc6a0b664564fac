//! `gamma-mlp`: a small network says what share of a draft of γ tokens will be accepted (SpecKV, known to us by its model
//! card), trained as the text goes on.
//!
//! `AR(γ) = clip(W₂ relu(W₁ x + b₁) + b₂)`, 6 → 16 → 1, of the last draft's mean entropy, mean top-1, largest entropy,
//! smallest top-1, a code of the target's compression (constant here) and γ. The expected accepted tokens are `AR(γ)·γ`, and
//! what the γ-th of them adds is its survival; so `length=goodput` with this estimator maximises `(AR(γ)·γ + 1)/T(γ)`, its
//! published objective with time in it, over all γ. Each run of judged tokens gives one label for every γ up to its draft's
//! length: 1 up to where it broke, then `accepted/γ`; longer drafts than were tried are extrapolated. State: 129 weights, and
//! for each drafter the features of two drafts and a survival curve.

use crate::plan::MAX_NODES;
use crate::sampling::pcg4d;
use crate::speculate::drafters::DrafterId;
use crate::speculate::length::{AcceptanceEstimator, MAX_DRAFTERS, place};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "gamma-mlp",
    paper: "SpecKV, model card",
    about: "a network of 129 weights, trained online, says what share of a draft is accepted",
    needs: "",
    options: &[OptionSpec {
        key: "gamma_mlp_rate",
        about: "share of an error that a step of its training takes away",
        default: 0.03,
        min: 0.0,
        max: 1.0,
    }],
    test: "length::estimators::gamma_mlp",
    make: Make::Estimator(|setup| Ok(Box::new(GammaMlp::new(setup.option("gamma_mlp_rate") as f32)))),
};

const INPUTS: usize = 6;
const HIDDEN: usize = 16;
/// Share expected before anything is learned.
const PRIOR: f32 = 0.6;
/// The longest draft that is thought of.
const LONGEST: usize = MAX_NODES - 1;
/// Drafts are seldom longer.
const GAMMA_SPAN: f32 = 16.0;
/// Entropies, in nats, are told apart up to this.
const ENTROPY_SPAN: f32 = 2.0;

type Inputs = [f32; INPUTS];

#[derive(Debug, Clone)]
struct Network {
    w1: [Inputs; HIDDEN],
    b1: [f32; HIDDEN],
    w2: [f32; HIDDEN],
    b2: f32,
}

impl Network {
    fn new() -> Network {
        // Small and different from each other; the same every time.
        let draw = |a: usize, b: usize| pcg4d([a as u32, b as u32, 6, 16])[0] as f32 / 2_147_483_648.0 - 1.0;
        Network {
            w1: std::array::from_fn(|unit| std::array::from_fn(|input| 0.5 * draw(unit, input))),
            b1: std::array::from_fn(|unit| 0.1 * draw(unit, INPUTS)),
            w2: std::array::from_fn(|unit| 0.2 * draw(unit, INPUTS + 1)),
            b2: PRIOR,
        }
    }

    fn hidden(&self, x: &Inputs) -> [f32; HIDDEN] {
        std::array::from_fn(|unit| {
            let sum: f32 = self.w1[unit].iter().zip(x).map(|(w, x)| w * x).sum();
            (sum + self.b1[unit]).max(0.0)
        })
    }

    fn output(&self, hidden: &[f32; HIDDEN]) -> f32 {
        self.w2.iter().zip(hidden).map(|(w, h)| w * h).sum::<f32>() + self.b2
    }

    fn share(&self, x: &Inputs) -> f32 {
        self.output(&self.hidden(x)).clamp(0.0, 1.0)
    }

    /// A gradient step that takes `rate` of the error away, whatever the size of the gradient.
    fn train(&mut self, x: &Inputs, share: f32, rate: f32) {
        let hidden = self.hidden(x);
        let inputs = 1.0 + x.iter().map(|x| x * x).sum::<f32>();
        let units = hidden.iter().zip(&self.w2).filter(|(h, _)| **h > 0.0);
        let steepness = 1.0 + units.map(|(h, w)| h * h + w * w * inputs).sum::<f32>();
        let step = rate * (share - self.output(&hidden)) / steepness;
        for (unit, &value) in hidden.iter().enumerate().filter(|(_, value)| **value > 0.0) {
            let back = step * self.w2[unit];
            self.b1[unit] += back;
            self.w1[unit].iter_mut().zip(x).for_each(|(w, x)| *w += back * x);
            self.w2[unit] += step * value;
        }
        self.b2 += step;
    }

    /// Survival by depth of a draft: what each further token adds to the accepted ones. It cannot rise with depth, so the
    /// expected numbers are taken up to their least concave bound.
    fn survival(&self, last: &Draft) -> [f32; LONGEST] {
        let mut accepted = [0.0; LONGEST + 1];
        for (tokens, accepted) in accepted.iter_mut().enumerate().skip(1) {
            *accepted = self.share(&last.inputs(tokens)) * tokens as f32;
        }
        let mut survival = [0.0; LONGEST];
        let mut at = 0;
        while at < LONGEST {
            let slope = |to: usize| (accepted[to] - accepted[at]) / (to - at) as f32;
            let to = (at + 1..=LONGEST).max_by(|&a, &b| slope(a).total_cmp(&slope(b))).unwrap_or(LONGEST);
            survival[at..to].fill(slope(to).clamp(0.0, 1.0));
            at = to;
        }
        survival
    }
}

/// Entropy and top-1 of a draft: means and extremes.
#[derive(Debug, Clone, Copy, Default)]
struct Draft {
    /// Its length: what is judged beyond it is not a sample of all drafts.
    length: usize,
    tokens: f32,
    entropy: f32,
    top1: f32,
    entropy_max: f32,
    top1_min: f32,
}

impl Draft {
    /// Entropies and top-1 within -1 and 1, and γ of drafts of the usual lengths.
    fn inputs(&self, tokens: usize) -> Inputs {
        let spread = |share: f32| 2.0 * share - 1.0;
        let gamma = spread(tokens as f32 / GAMMA_SPAN);
        if self.tokens == 0.0 {
            return [0.0, 0.0, 0.0, 0.0, 0.0, gamma];
        }
        let entropy = |nats: f32| spread((nats / ENTROPY_SPAN).min(1.0));
        let (mean_entropy, mean_top1) = (self.entropy / self.tokens, self.top1 / self.tokens);
        [entropy(mean_entropy), spread(mean_top1), entropy(self.entropy_max), spread(self.top1_min), 0.0, gamma]
    }
}

/// The network, and the last draft of each drafter.
#[derive(Debug)]
pub struct GammaMlp {
    rate: f32,
    network: Network,
    /// The draft before, which the network is shown, and the one being judged.
    drafts: [(Draft, Draft); MAX_DRAFTERS],
    /// What the network says of the next draft, by depth.
    survivals: [[f32; LONGEST]; MAX_DRAFTERS],
}

impl GammaMlp {
    /// Untrained.
    pub fn new(rate: f32) -> GammaMlp {
        let network = Network::new();
        let survivals = [network.survival(&Draft::default()); MAX_DRAFTERS];
        GammaMlp { rate, network, drafts: Default::default(), survivals }
    }
}

impl AcceptanceEstimator for GammaMlp {
    fn name(&self) -> &'static str {
        "gamma-mlp"
    }

    fn a_hat(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        let node = tree.node(node);
        self.expected(node.source.unwrap_or(DrafterId(0)), node.depth)
    }

    fn expected(&self, drafter: DrafterId, depth: usize) -> f32 {
        let survival = &self.survivals[place(Some(drafter))];
        let at = depth.clamp(1, LONGEST) - 1;
        let above = if at == 0 { 1.0 } else { survival[at - 1] };
        if above > 0.0 { survival[at] / above } else { 0.0 }
    }

    fn learn(&mut self, tree: &TokenTree, node: NodeId, accepted: bool) {
        let known = tree.node(node);
        if tree.node(known.parent).slots.first().is_none_or(|slot| slot.child != node) {
            return;
        }
        let (before, judged) = &mut self.drafts[place(known.source)];
        if known.depth == 1 {
            (*before, *judged) = (*judged, Draft { length: tree.depth(), top1_min: 1.0, ..Draft::default() });
        }
        if known.depth > judged.length.min(LONGEST) {
            return;
        }
        judged.tokens += 1.0;
        judged.entropy += known.stats.entropy;
        judged.top1 += known.stats.top1;
        judged.entropy_max = judged.entropy_max.max(known.stats.entropy);
        judged.top1_min = judged.top1_min.min(known.stats.top1);
        let (before, length) = (*before, judged.length.min(LONGEST));
        let mut train = |tokens: usize, share: f32| self.network.train(&before.inputs(tokens), share, self.rate);
        if accepted {
            train(known.depth, 1.0);
        } else {
            (known.depth..=length).for_each(|tokens| train(tokens, (known.depth - 1) as f32 / tokens as f32));
        }
    }

    /// The draft that was judged last is the one before the next.
    fn observe(&mut self, _: &RoundOutcome) {
        for (survival, (_, last)) in
            self.survivals.iter_mut().zip(&self.drafts).filter(|(_, drafts)| drafts.1.tokens > 0.0)
        {
            *survival = self.network.survival(last);
        }
    }

    fn reset(&mut self) {
        *self = GammaMlp::new(self.rate);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{FLAT, Kind, Trace, estimator, judged_chain};
    use super::*;
    use crate::sampling::pcg4d;
    use crate::speculate::cost::CostModel;

    fn chance(at: u32) -> f32 {
        pcg4d([at, 3, 33, 333])[0] as f32 / 4_294_967_296.0
    }

    #[test]
    fn picks_the_length_that_a_search_over_all_picks() {
        for (alpha, step_ms) in [(0.9_f32, 0.1), (0.8, 0.15), (0.6, 0.1)] {
            let mut mlp = estimator("gamma-mlp");
            let mut at = 0;
            for _ in 0..3000 {
                judged_chain(&mut *mlp, 15, 0.7, || {
                    at += 1;
                    chance(at) < alpha
                });
            }
            let cost = CostModel::of_curve(FLAT, &[step_ms]);
            let pick = |survival: &dyn Fn(usize) -> f64| {
                let worth = |tokens: usize| {
                    (1.0 + (1..=tokens).map(survival).sum::<f64>()) / cost.round_ms(DrafterId(0), tokens)
                };
                (0..=15).max_by(|&a, &b| worth(a).total_cmp(&worth(b))).expect("some")
            };
            let truth = |depth: usize| f64::from(alpha).powi(depth as i32);
            let learned = |depth: usize| (1..=depth).map(|at| f64::from(mlp.expected(DrafterId(0), at))).product();
            let worth =
                |tokens: usize| (1.0 + (1..=tokens).map(truth).sum::<f64>()) / cost.round_ms(DrafterId(0), tokens);
            let (best, own) = (pick(&truth), pick(&learned));
            assert!(worth(own) > 0.97 * worth(best), "{alpha}: {own}, the search {best}");
        }
    }

    #[test]
    fn the_last_draft_foretells_the_next() {
        let mut mlp = estimator("gamma-mlp");
        let mut at = 0;
        let mut last = [0.0; 2];
        for round in 0..4000 {
            // Eight sure drafts, then eight doubtful ones.
            let sure = (round / 8_usize).is_multiple_of(2);
            if round >= 3900 && round % 8 == 1 {
                last[usize::from(sure)] = mlp.expected(DrafterId(0), 1);
            }
            judged_chain(&mut *mlp, 8, if sure { 0.95 } else { 0.3 }, || {
                at += 1;
                chance(at) < if sure { 0.95 } else { 0.3 }
            });
        }
        assert!(last[1] > last[0] + 0.2, "after a sure draft {}, after a doubtful one {}", last[1], last[0]);
    }

    #[test]
    fn goodput_by_it_keeps_up_with_the_best_fixed_length() {
        let trace = Trace::new(Kind::Inner, FLAT, &|_| 0.8);
        let (best, rate) = trace.best_fixed(1500);
        let own = trace.replay("length=goodput,estimator=gamma-mlp", 1500).rate(0..1500);
        assert!(own > 0.95 * rate, "{own}, fixed {best} gives {rate}");
    }
}
