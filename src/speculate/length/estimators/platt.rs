//! `platt(X)`: any estimator, calibrated as the text goes on (Platt scaling; the weight-free stand-in for SpecDec++'s head).
//!
//! `â = σ(w · [1, logit X, entropy, margin, depth])` with weights by drafter, learned by an extended Kalman filter: the step of
//! online logistic regression with its gain from a covariance P, `K = P x / (1 + v xᵀP x)`, `v = â(1-â)`. Each round adds
//! noise to P, most to the bias, so the level follows the text while slopes settle. Where a fading sum of surprises exceeds
//! [`ALARM`] standard deviations the bias is opened again and the inner estimator is told to doubt, so a change of regime is
//! followed within some ten judged tokens. State: 5 weights and 25 covariances, means of two features and the sum, for each
//! of [`MAX_DRAFTERS`] drafters.

use super::Mean;
use crate::speculate::drafters::DrafterId;
use crate::speculate::length::{AcceptanceEstimator, MAX_DRAFTERS, estimate, place};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::outcome::{Needs, RoundOutcome};
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "platt",
    paper: "Platt scaling, 1999, online; in place of the trained head of SpecDec++, arXiv 2405.19715",
    about: "platt(X): any estimator, calibrated online by what was accepted",
    needs: "",
    options: &[OptionSpec {
        key: "platt_drift",
        about: "variance that a round adds to the bias, in logits",
        default: 0.005,
        min: 0.0,
        max: 1.0,
    }],
    test: "length::estimators::platt",
    make: Make::Estimator(|setup| {
        let inner = setup.estimator(setup.inner.unwrap_or("confidence"))?;
        Ok(Box::new(Platt::new(inner, setup.option("platt_drift") as f32)))
    }),
};

/// 1, logit of the inner estimate, entropy, margin, depth.
const FEATURES: usize = 5;
/// Variance of each weight before anything is learned.
const PRIOR_VARIANCE: [f32; FEATURES] = [1.0, 0.1, 0.1, 0.1, 0.1];
/// The bias of a drafter that copies before anything is learned of it: what a text does not repeat is claimed all the same.
const COPY_BIAS: f32 = -0.5;
/// Share of the bias's drift that the other weights get.
const SLOPE_DRIFT: f32 = 0.002;
/// No variance of a weight grows beyond this.
const MAX_VARIANCE: f32 = 1.0;
/// Inner estimates are taken to lie within this and 1 less this, which bounds their logit.
const EDGE: f32 = 0.02;
/// The estimate lies within the same, so that one that was wrong for long is soon mended.
const MAX_LOGIT: f32 = 4.0;
/// What is left of a surprise at the next token.
const SURPRISE_FADE: f32 = 0.8;
/// Standard deviations of the fading sum of surprises at which the regime is taken to have changed.
const ALARM: f32 = 4.0;
/// Tokens that the means of features remember.
const MEMORY: f32 = 32.0;

type Vector = [f32; FEATURES];

#[derive(Debug, Clone)]
struct Filter {
    weights: Vector,
    covariance: [Vector; FEATURES],
    /// Entropy and margin of its drafts, on average.
    usual: [Mean; 2],
    /// Fading sum of what was not foreseen.
    surprise: f32,
    /// Nothing of its drafter was seen.
    fresh: bool,
}

impl Filter {
    /// Believes the inner estimate.
    fn new() -> Filter {
        let mut covariance = [[0.0; FEATURES]; FEATURES];
        for (at, variance) in PRIOR_VARIANCE.into_iter().enumerate() {
            covariance[at][at] = variance;
        }
        Filter { weights: [0.0, 1.0, 0.0, 0.0, 0.0], covariance, usual: Default::default(), surprise: 0.0, fresh: true }
    }

    fn logit(&self, x: &Vector) -> f32 {
        self.weights.iter().zip(x).map(|(w, x)| w * x).sum()
    }

    fn probability(&self, x: &Vector) -> f32 {
        1.0 / (1.0 + (-self.logit(x).clamp(-MAX_LOGIT, MAX_LOGIT)).exp())
    }

    /// Learns from a token; gives whether it and those before it were too strange for chance.
    fn learn(&mut self, x: &Vector, accepted: bool) -> bool {
        let probability = self.probability(x);
        let v = probability * (1.0 - probability);
        let surprise = f32::from(u8::from(accepted)) - probability;
        self.surprise = SURPRISE_FADE * self.surprise + surprise;
        let usual = v / (1.0 - SURPRISE_FADE * SURPRISE_FADE);
        let alarm = self.surprise * self.surprise > ALARM * ALARM * usual;
        if alarm {
            // This is another text now: what the level was no longer counts.
            self.covariance[0][0] = self.covariance[0][0].max(MAX_VARIANCE);
            self.surprise = 0.0;
        }
        let px: Vector = self.covariance.map(|row| row.iter().zip(x).map(|(p, x)| p * x).sum());
        let spread = 1.0 + v * px.iter().zip(x).map(|(p, x)| p * x).sum::<f32>();
        for row in 0..FEATURES {
            self.weights[row] += px[row] / spread * surprise;
            for column in 0..FEATURES {
                self.covariance[row][column] -= v * px[row] * px[column] / spread;
            }
        }
        // No surer than it may say: else a long run of one kind would have to be unlearned token by token.
        let logit = self.logit(x);
        self.weights[0] += logit.clamp(-MAX_LOGIT, MAX_LOGIT) - logit;
        alarm
    }

    fn drift(&mut self, bias: f32) {
        for (at, row) in self.covariance.iter_mut().enumerate() {
            let drift = if at == 0 { bias } else { bias * SLOPE_DRIFT };
            row[at] = (row[at] + drift).min(MAX_VARIANCE.max(row[at]));
        }
    }
}

/// An estimator and its calibration.
pub struct Platt {
    inner: Box<dyn AcceptanceEstimator>,
    drift: f32,
    filters: Vec<Filter>,
}

impl Platt {
    /// Calibrates `inner`.
    pub fn new(inner: Box<dyn AcceptanceEstimator>, drift: f32) -> Platt {
        Platt { inner, drift, filters: vec![Filter::new(); MAX_DRAFTERS] }
    }

    fn features(&mut self, tree: &TokenTree, node: NodeId) -> Vector {
        let inner = estimate(&mut *self.inner, tree, node);
        let known = tree.node(node);
        let filter = &mut self.filters[place(known.source)];
        if std::mem::take(&mut filter.fresh) && known.stats.match_len > 0 {
            filter.weights[0] = COPY_BIAS;
        }
        vector(inner, known.stats.entropy, known.stats.margin, known.depth)
    }
}

fn vector(inner: f32, entropy: f32, margin: f32, depth: usize) -> Vector {
    let inner = inner.clamp(EDGE, 1.0 - EDGE);
    // Depth in octaves from the first.
    [1.0, (inner / (1.0 - inner)).ln(), entropy, margin, (depth.max(1) as f32).log2() / 4.0]
}

impl AcceptanceEstimator for Platt {
    fn name(&self) -> &'static str {
        "platt"
    }

    fn needs(&self) -> Needs {
        self.inner.needs()
    }

    fn a_hat(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        let x = self.features(tree, node);
        self.filters[place(tree.node(node).source)].probability(&x)
    }

    fn expected(&self, drafter: DrafterId, depth: usize) -> f32 {
        let filter = &self.filters[place(Some(drafter))];
        let [entropy, margin] = filter.usual.map(|mean| mean.value);
        filter.probability(&vector(self.inner.expected(drafter, depth), entropy, margin, depth))
    }

    fn reads_drafts(&self) -> bool {
        self.inner.reads_drafts()
    }

    fn learn(&mut self, tree: &TokenTree, node: NodeId, accepted: bool) {
        // The estimate as it was made: the inner one learns after it.
        let x = self.features(tree, node);
        let source = tree.node(node).source;
        let filter = &mut self.filters[place(source)];
        if filter.learn(&x, accepted) {
            self.inner.doubt(source);
        }
        filter.usual[0].add(x[2], MEMORY);
        filter.usual[1].add(x[3], MEMORY);
        self.inner.learn(tree, node, accepted);
    }

    fn doubt(&mut self, drafter: Option<DrafterId>) {
        self.inner.doubt(drafter);
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        self.filters.iter_mut().for_each(|filter| filter.drift(self.drift));
        self.inner.observe(outcome);
    }

    fn reset(&mut self) {
        self.inner.reset();
        self.filters.fill(Filter::new());
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{FLAT, Kind, Trace, calibration_error};

    fn alpha(at: usize) -> f32 {
        [0.95, 0.9, 0.6, 0.3, 0.05][at * 7 % 5]
    }

    #[test]
    fn a_boastful_draft_is_calibrated() {
        // It claims 0.99 for 0.9 and 0.65 for 0.3.
        let boast = |alpha: f32, _| 1.0 - (1.0 - alpha) * (1.0 - alpha) * 0.7;
        let trace = Trace { claims: boast, ..Trace::new(Kind::Host, FLAT, &alpha) };
        let error = |estimator| calibration_error(&trace, estimator, 2000);
        let (raw, calibrated) = (error("confidence"), error("platt(confidence)"));
        assert!(raw > 0.15 && calibrated < 0.05, "expected calibration error {raw} to {calibrated}");
    }

    #[test]
    fn a_change_is_followed_at_once() {
        let alpha = |at: usize| if at < 3000 { 0.9 } else { 0.1 };
        let trace = Trace::new(Kind::Host, FLAT, &alpha);
        let after = |estimator: &str| {
            let replay = trace.replay(&format!("length=goodput,estimator={estimator}"), 1500);
            let start = replay.outcomes.iter().position(|outcome| outcome.context_len >= 3000).expect("so far");
            replay.mean_length(start + 10..start + 20)
        };
        let (plain, calibrated) = (after("ema,ema_memory=128"), after("platt(ema),ema_memory=128"));
        assert!(calibrated < 3.0 && plain > 10.0, "drafts of {calibrated}, and of {plain} without it");
    }
}
