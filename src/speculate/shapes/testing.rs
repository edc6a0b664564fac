//! What tests of shapes share: the real round, a drafter with much to offer, and a look at what was asked.

use super::{Budget, Grow, TreeShape};
use crate::error::Result;
use crate::plan::MAX_NODES;
use crate::sampling::{SamplingParams, pcg4d};
use crate::speculate::accept::Match;
use crate::speculate::cost::CostModel;
use crate::speculate::drafters::{Ask, DraftContext, Drafter, DrafterId, Expansion, each_leaf};
use crate::speculate::length::{Fixed, Signals};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::round::{Parts, Speculator};
use crate::speculate::select::Cascade;
use crate::speculate::simulate::SimulatedTarget;
use crate::speculate::target::Target;
use crate::speculate::tree::{Candidate, DraftStats, NodeId, TokenTree};
use futures_lite::future::block_on;
use std::cell::RefCell;
use std::rc::Rc;

/// The most nodes that a round drafts.
pub(crate) const MOST: usize = MAX_NODES - 1;

/// Offers up to `width` children below every node; their probabilities are a function of the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wide {
    pub(crate) width: usize,
    /// Scales the probability of the first child, .3 to .9; it is cut at .99.
    pub(crate) first: f32,
    pub(crate) seed: u32,
}

impl Wide {
    pub(crate) fn new(width: usize) -> Wide {
        Wide { width, first: 1.0, seed: 0 }
    }

    /// Children below a path with their probabilities, which do not increase and sum to less than 1.
    pub(crate) fn row(&self, path: &[u32]) -> Vec<(u32, f32)> {
        let hash = path.iter().fold([self.seed; 4], |hash, &token| pcg4d([hash[0], hash[1], token, 5]));
        let mut chance = (self.first * (0.3 + 0.6 * hash[2] as f32 / u32::MAX as f32)).min(0.99);
        let mut rest = 1.0;
        let row = (0..self.width as u32).map(|rank| {
            let entry = (hash[3] % 1000 * 16 + rank, chance);
            rest -= chance;
            chance = chance.min(rest * 0.6);
            entry
        });
        row.collect()
    }

    /// The tree of the likeliest `nodes` of all that could be drafted.
    pub(crate) fn best(&self, root: u32, nodes: usize) -> TokenTree {
        let mut tree = TokenTree::new(root);
        for _ in 0..nodes {
            let offers = tree.ids().flat_map(|id| {
                let row = self.row(&tree.path_tokens(id)).into_iter();
                row.filter(|entry| tree.child(id, entry.0).is_none()).map(|entry| (id, entry)).collect::<Vec<_>>()
            });
            let survival = |offer: &(NodeId, (u32, f32))| tree.node(offer.0).survival * offer.1.1;
            let Some((leaf, (token, chance))) = offers.max_by(|a, b| survival(a).total_cmp(&survival(b))) else {
                break;
            };
            let candidate = Candidate::new(token, DraftStats::of_probability(chance));
            let (node, _) = tree.attach(leaf, &candidate, DrafterId(0)).expect("room");
            tree.set_estimate(node, chance);
        }
        tree
    }
}

impl Drafter for Wide {
    fn name(&self) -> &'static str {
        "wide"
    }

    fn default_tokens(&self) -> usize {
        MOST
    }

    fn expand(&mut self, _: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        Ok(each_leaf(ask, |leaf| {
            let row = self.row(&tree.path_tokens(leaf)).into_iter();
            row.map(|(token, chance)| Candidate::new(token, DraftStats::of_probability(chance))).collect()
        }))
    }
}

/// Notes what a shape asks for.
struct Watched {
    shape: Box<dyn TreeShape>,
    steps: Rc<RefCell<Vec<Grow>>>,
}

impl TreeShape for Watched {
    fn name(&self) -> &'static str {
        self.shape.name()
    }
    fn begin(&mut self) {
        self.shape.begin();
        self.steps.borrow_mut().clear();
    }
    fn plan(&mut self, signals: &Signals<'_>, budget: &Budget) {
        self.shape.plan(signals, budget);
    }
    fn next(&mut self, tree: &TokenTree, budget: &Budget) -> Option<Grow> {
        let grow = self.shape.next(tree, budget);
        self.steps.borrow_mut().extend(grow.clone());
        grow
    }
    fn prune(&mut self, tree: &TokenTree, budget: &Budget) -> Option<Vec<NodeId>> {
        self.shape.prune(tree, budget)
    }
    fn prunes(&self) -> bool {
        self.shape.prunes()
    }
    fn adapts_width(&self) -> bool {
        self.shape.adapts_width()
    }
    fn is_chain(&self) -> bool {
        self.shape.is_chain()
    }
    fn reset(&mut self) {
        self.shape.reset();
    }
    fn observe(&mut self, outcome: &RoundOutcome) {
        self.shape.observe(outcome);
    }
}

/// A speculator of a shape over drafters, with a budget of so many nodes.
pub(crate) fn speculator(shape: impl TreeShape + 'static, drafters: Vec<Box<dyn Drafter>>, nodes: usize) -> Speculator {
    let parts = Parts {
        drafters,
        length: Box::new(Fixed(Some(nodes))),
        shape: Box::new(shape),
        rule: Box::new(Match),
        selector: Box::new(Cascade),
    };
    Speculator::new(parts, "on".to_owned())
}

/// The tree of one round, and what was asked step by step.
pub(crate) fn grown(
    shape: impl TreeShape + 'static,
    drafters: Vec<Box<dyn Drafter>>,
    nodes: usize,
) -> (TokenTree, Vec<Grow>) {
    grown_by(Box::new(shape), drafters, nodes)
}

/// The same of a shape of any kind.
pub(crate) fn grown_by(
    shape: Box<dyn TreeShape>,
    drafters: Vec<Box<dyn Drafter>>,
    nodes: usize,
) -> (TokenTree, Vec<Grow>) {
    let steps = Rc::new(RefCell::new(Vec::new()));
    let mut speculator = speculator(Watched { shape, steps: Rc::clone(&steps) }, drafters, nodes);
    let target = SimulatedTarget::new(vec![0; 100], CostModel::of_curve([1.0, 1.1, 1.2, 1.4, 1.8], &[]), 0.1);
    let sampling = SamplingParams::default();
    let tree = block_on(speculator.round(&target, &[0; 10], &sampling, 90)).expect("round").tree;
    assert!(tree.drafted() <= nodes, "{} of {nodes}", tree.drafted());
    let steps = steps.borrow().clone();
    (tree, steps)
}

/// Mean acceptance length over a replay of `text`, and tokens in the time of a plain step. Costs are known.
pub(crate) fn replay(mut speculator: Speculator, text: &[u32]) -> (f64, f64) {
    let cost = CostModel::of_curve([1.0, 1.1, 1.2, 1.4, 1.8], &[]);
    *speculator.cost.borrow_mut() = cost.clone();
    let target = SimulatedTarget::new(text.to_vec(), cost, 0.1);
    let outcomes = target.replay(&mut speculator, 1).expect("replay");
    let written: Vec<u32> = outcomes.iter().flat_map(RoundOutcome::emitted).collect();
    assert_eq!(written, text[1..], "the text is the target's");
    (speculator.totals.mean_acceptance_length(), (text.len() - 1) as f64 / target.now_ms())
}

/// A text without structure.
pub(crate) fn noise(len: u32) -> Vec<u32> {
    (0..len).map(|at| pcg4d([at, 1, 2, 3])[0] % 1000).collect()
}
