//! `bandit`: the drafter of the largest upper confidence bound, learned from the chosen one only (BanditSpec, arXiv 2505.15141:
//! UCB1).
//!
//! `argmax_i mean_i + sqrt(2 ln t / n_i)`, with the speed of the round in plain steps over the largest seen as reward, 0 to 1. A
//! drafter that was chosen and had nothing to offer earned a plain step. State: a count and a sum a drafter.

use super::{DraftSelector, DrafterInfo, Selection};
use crate::speculate::cost::CostModel;
use crate::speculate::drafters::DrafterId;
use crate::speculate::length::Signals;
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::RoundOutcome;

/// This method.
pub static METHOD: Method = Method {
    name: "bandit",
    paper: "BanditSpec, arXiv 2505.15141",
    about: "the drafter of the largest upper confidence bound on tokens per millisecond",
    needs: "",
    options: &[],
    test: "select::bandit",
    make: Make::Select(|_| Ok(Box::new(Bandit::default()))),
};

/// What is known of a drafter.
#[derive(Debug, Clone, Copy, Default)]
struct Arm {
    pulls: f64,
    speeds: f64,
}

/// UCB1.
#[derive(Debug, Clone, Default)]
pub struct Bandit {
    arms: Vec<Arm>,
    fastest: f64,
    chosen: Option<DrafterId>,
    cost: CostModel,
}

impl Bandit {
    fn bound(&self, arm: &Arm) -> f64 {
        let pulls: f64 = self.arms.iter().map(|arm| arm.pulls).sum();
        if arm.pulls == 0.0 {
            return f64::INFINITY;
        }
        arm.speeds / arm.pulls / self.fastest.max(1e-9) + (2.0 * pulls.ln() / arm.pulls).sqrt()
    }

    fn learn(&mut self, drafter: DrafterId, speed: f64) {
        self.fastest = self.fastest.max(speed);
        if let Some(arm) = self.arms.get_mut(usize::from(drafter.0)) {
            arm.pulls += 1.0;
            arm.speeds += speed;
        }
    }
}

impl DraftSelector for Bandit {
    fn name(&self) -> &'static str {
        "bandit"
    }

    fn select(&mut self, signals: &Signals<'_>, drafters: &[DrafterInfo]) -> Selection {
        self.cost = signals.cost.clone();
        self.arms.resize(drafters.len(), Arm::default());
        let bounds: Vec<f64> = self.arms.iter().map(|arm| self.bound(arm)).collect();
        let mut order: Vec<DrafterId> = drafters.iter().map(|drafter| drafter.id).collect();
        order.sort_by(|a, b| bounds[usize::from(b.0)].total_cmp(&bounds[usize::from(a.0)]));
        self.chosen = order.first().copied();
        Selection::Alone(order)
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        let drafter = outcome.tree.nodes().get(1).and_then(|node| node.source);
        let chosen = self.chosen.take();
        if let Some(chosen) = chosen.filter(|_| chosen != drafter) {
            self.learn(chosen, 1.0);
        }
        if let Some(drafter) = drafter {
            let steps = outcome.timing.draft_steps;
            let draft_ms = match steps {
                0 => self.cost.host_draft_ms(),
                _ => steps as f64 * self.cost.draft_step_ms(drafter),
            };
            let ms = self.cost.verify_ms(outcome.tree.nodes().len()) + draft_ms;
            self.learn(drafter, outcome.emitted().len() as f64 * self.cost.plain_ms() / ms.max(1e-9));
        }
    }

    fn reset(&mut self) {
        *self = Bandit::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::select::hedge::tests::trace;
    use crate::speculate::select::testing::{picks, replay, simulated};
    use crate::speculate::select::{Cascade, Hedge};
    use crate::speculate::shapes::testing::noise;

    #[test]
    fn finds_the_best_and_is_slow_where_it_changes() {
        let text = noise(6000);
        let drafters = || vec![simulated(&text, 1, |_| 0.2), simulated(&text, 2, |_| 0.85)];
        let (bandit, outcomes) = replay(Bandit::default(), drafters(), &text);
        let (cascade, _) = replay(Cascade, drafters(), &text);
        let late = &picks(&outcomes)[outcomes.len() / 2..];
        let best = late.iter().filter(|pick| **pick == Some(DrafterId(1))).count();
        println!("bandit {bandit:.3} cascade {cascade:.3} best {best} of {}", late.len());
        assert!(bandit > 1.5 * cascade && best * 10 > late.len() * 9);
        // The same change of the best drafter as in the test of hedge.
        let long = noise(20_000);
        let (hedge, bandit) = (trace(Hedge::new(50.0), &long, 1700), trace(Bandit::default(), &long, 1700));
        println!("wrong picks before and after, rounds until the new best: hedge {hedge:?} bandit {bandit:?}");
        assert!(bandit.2 > 5 * hedge.2 && bandit.1 > 4 * hedge.1);
    }
}
