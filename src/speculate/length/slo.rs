//! `slo`: the shortest draft that writes fast enough (AdaServe's latency target for one user, FlexSpec's additive channel
//! delay; both reconstructions from the abstract).
//!
//! Of all lengths n with `(t_fixed + T(n) + n·penalty) / (1 + Σ survival) ≤ max_ms_per_token` the smallest, which drafts no more
//! than the user can read; where none is fast enough the one of least time a token. As `t_fixed` grows, n never shrinks: the
//! set of lengths that are fast enough loses its smallest first, and the ratio's minimum moves up. `t_fixed` is what a round
//! costs beyond the measured passes, a network before a remote target, say; `penalty` is what a drafted token shall cost
//! beyond its time, on battery. All else is [`super::goodput`]: what is drafted, cut, probed and learned. State: its own.

use super::estimator_of;
use super::goodput::{Goodput, Objective};
use crate::speculate::methods::{Make, Method, OptionSpec};

/// This method.
pub static METHOD: Method = Method {
    name: "slo",
    paper: "AdaServe, arXiv 2501.12162; FlexSpec; reconstructions from the abstracts",
    about: "the shortest draft that writes fast enough, or the fastest there is",
    needs: "",
    options: &[
        OptionSpec {
            key: "max_ms_per_token",
            about: "time a token may take, milliseconds",
            default: 50.0,
            min: 0.0,
            max: 1e6,
        },
        OptionSpec {
            key: "slo_fixed_ms",
            about: "what a round takes beyond its passes, milliseconds",
            default: 0.0,
            min: 0.0,
            max: 1e6,
        },
        OptionSpec {
            key: "slo_token_ms",
            about: "what a drafted token counts beyond its time, milliseconds",
            default: 0.0,
            min: 0.0,
            max: 1e6,
        },
    ],
    test: "length::slo",
    make: Make::Length(|setup| {
        let objective = Slo {
            most_ms: setup.option("max_ms_per_token"),
            fixed_ms: setup.option("slo_fixed_ms"),
            token_ms: setup.option("slo_token_ms"),
        };
        let estimator = estimator_of(setup, "platt(tier)")?;
        Ok(Box::new(Goodput::new(estimator, setup.config.num_speculative_tokens, objective)))
    }),
};

/// The objective.
#[derive(Debug, Clone, Copy)]
pub struct Slo {
    /// Time a token may take.
    pub most_ms: f64,
    /// What a round takes beyond its passes.
    pub fixed_ms: f64,
    /// What a drafted token counts beyond its time.
    pub token_ms: f64,
}

impl Objective for Slo {
    fn name(&self) -> &'static str {
        "slo"
    }

    fn content(&self, plain_ms: f64) -> bool {
        self.fixed_ms + plain_ms <= self.most_ms
    }

    fn pick(
        &self,
        mut tokens: f64,
        survival: &mut dyn Iterator<Item = f64>,
        ms: &dyn Fn(usize) -> f64,
        _: f64,
    ) -> (usize, f64) {
        let per_token = |more: usize, tokens: f64| (self.fixed_ms + ms(more) + more as f64 * self.token_ms) / tokens;
        let mut best = (0, per_token(0, tokens));
        for (at, survival) in survival.enumerate() {
            if best.1 <= self.most_ms {
                break;
            }
            tokens += survival;
            let ms = per_token(at + 1, tokens);
            if ms < best.1 {
                best = (at + 1, ms);
            }
        }
        (best.0, -best.1.max(self.most_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FLAT, Kind, LINEAR, MEASURED, Trace};

    #[test]
    fn lengths_never_shrink_as_rounds_get_dearer() {
        for curve in [MEASURED, LINEAR, FLAT] {
            for most in [0.0, 1.0, 3.0] {
                for alpha in [0.6, 0.8, 0.95] {
                    let cost = crate::speculate::cost::CostModel::of_curve(curve, &[0.1]);
                    let pick = |fixed_ms| {
                        use crate::speculate::length::goodput::Objective;
                        let slo = super::Slo { most_ms: most, fixed_ms, token_ms: 0.0 };
                        let mut survival = (1..=15).map(|depth| f64::powi(alpha, depth));
                        slo.pick(1.0, &mut survival, &|n| cost.verify_ms(n + 1) + 0.1 * n as f64, 1.0).0
                    };
                    let lengths: Vec<usize> = (0..60).map(|at| pick(0.25 * f64::from(at))).collect();
                    assert!(lengths.is_sorted(), "{curve:?} {most} {alpha}: {lengths:?}");
                    assert!(lengths[0] < lengths[59] || lengths[0] == 15, "{curve:?} {most} {alpha}: {lengths:?}");
                }
            }
        }
    }

    #[test]
    fn drafts_no_more_than_the_target_asks_for() {
        for kind in [Kind::Host, Kind::Inner] {
            let trace = Trace::new(kind, FLAT, &|_| 0.9);
            // A plain step takes 1 ms.
            let run = |most: f64| trace.replay(&format!("length=slo,max_ms_per_token={most}"), 600);
            let (lazy, brisk, fast) = (run(1.5), run(0.5), run(0.0));
            assert!(lazy.mean_length(100..600) < 0.2, "{kind:?}: {}", lazy.mean_length(100..600));
            let ms = 1.0 / brisk.rate(100..600);
            assert!(ms < 0.55 && brisk.mean_length(100..600) < 4.0, "{kind:?}: {ms}");
            let goodput = trace.replay("length=goodput", 600).rate(100..600);
            let rate = fast.rate(100..600);
            assert!(
                rate > 0.95 * goodput,
                "{kind:?}: what cannot be met is met as nearly as can be: {rate} of {goodput}"
            );
        }
    }
}
