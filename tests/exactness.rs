//! Proof by enumeration: every exact rule with every shape and kind of drafter writes the target's distribution, and the
//! known ways to break that do not (methods.md §1, §5, §8).
//!
//! Target and drafters are fixed random conditional tables over four tokens that look at the last two. The engine's own
//! round runs once for each sequence of draws that it can come to; rounds follow each other until enough tokens are written
//! that every path has at least two.

#[path = "support/toy.rs"]
mod toy;

use foredraft::sampling::{SamplingParams, pcg4d};
use foredraft::speculate::accept::{Exactness, ProposalKind, Traversal};
use foredraft::speculate::chance::{Branches, Chance, Key, Purpose};
use foredraft::speculate::contract;
use foredraft::speculate::cost::CostModel;
use foredraft::speculate::methods::{METHODS, Make, Setup, names};
use foredraft::speculate::round::Parts;
use foredraft::speculate::select::DraftSelector;
use foredraft::speculate::tree::Distribution;
use foredraft::speculate::{SpeculationConfig, Speculator};
use futures_lite::future::block_on;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use toy::{Cutter, DEFECTS, Mode, Picky, Pruner, Shape, Surest, Table, TableTarget, parts, rule, unchecked};

/// Tokens of the vocabulary.
const SIZE: usize = 4;
/// Random pairs of target and drafters.
const PAIRS: u32 = 25;
/// What the first tokens' joint law may be off by.
const EXACT: f64 = 1e-9;
/// What a defect must be off by at least, in its worst pair.
const BROKEN: f64 = 1e-3;
/// Where a text begins.
const PROMPT: [u32; 2] = [1, 2];

/// A target and two drafters.
struct Pair {
    p: Rc<Table>,
    q: Rc<Table>,
    other: Rc<Table>,
}

impl Pair {
    fn new(seed: u32) -> Pair {
        let unit = |which: u32, context: u32, at: u32| {
            (f64::from(pcg4d([seed, which, context, at])[0]) + 0.5) / 4_294_967_296.0
        };
        // Truncation leaves a few tokens; those of a draft are often not those of the target.
        let row = |which: u32, context: u32, kept: usize, not: &[f64]| -> Vec<f64> {
            let mut order: Vec<u32> = (0..SIZE as u32).collect();
            order.sort_by(|&a, &b| unit(which, context, a).total_cmp(&unit(which, context, b)));
            order.retain(|&token| not.get(token as usize).is_none_or(|&p| p == 0.0));
            order.truncate(kept);
            let mut row = [0.0; SIZE];
            for token in order {
                row[token as usize] = -unit(which, context, 8 + token).ln();
            }
            let total: f64 = row.iter().sum();
            row.iter().map(|weight| weight / total).collect()
        };
        let kept = |which: u32, context: u32, counts: &[usize]| {
            counts[pcg4d([seed, which, context, 99])[0] as usize % counts.len()]
        };
        // Draws of four tokens have many branches, so two pairs of all have rows of so many.
        let widest = if seed % 12 == 6 { 4 } else { 2 };
        let (mut p, mut q, mut other) = (Vec::new(), Vec::new(), Vec::new());
        for context in 0..(SIZE * SIZE) as u32 {
            let target = row(0, context, kept(0, context, &[1, 2, 2, 3, 4]), &[]);
            for (which, rows) in [(1, &mut q), (2, &mut other)] {
                let support = target.iter().filter(|&&p| p > 0.0).count();
                let disjoint = support < SIZE && kept(which, context, &[0, 0, 0, 0, 0, 1]) == 1;
                let not: &[f64] = if disjoint { &target } else { &[] };
                rows.push(row(which, context, kept(10 + which, context, &[1, 2, 2, 3, widest]), not).into());
            }
            p.push(Distribution::from(target));
        }
        let table = |rows| Rc::new(Table { order: 2, size: SIZE, rows });
        Pair { p: table(p), q: table(q), other: table(other) }
    }

    fn all() -> impl Iterator<Item = Pair> {
        (0..PAIRS).map(Pair::new)
    }
}

/// Runs one round by `chance` and gives what it wrote.
fn round(speculator: &mut Speculator, p: &Table, tokens: &[u32], chance: &RefCell<dyn Chance + '_>) -> Vec<u32> {
    let target = TableTarget { table: p, chance };
    let sampling = SamplingParams { temperature: 1.0, ..SamplingParams::default() };
    block_on(speculator.round_with(&target, tokens, &sampling, 100, chance)).expect("a round").emitted()
}

/// Laws of rounds, by the context they start from; rounds look at nothing else.
struct Rounds<'a> {
    speculator: Speculator,
    p: &'a Table,
    known: HashMap<[u32; 2], Vec<(Vec<u32>, f64)>>,
    runs: usize,
    /// Whether every run starts from what is known before any.
    forgets: bool,
}

impl<'a> Rounds<'a> {
    fn new(parts: Parts, p: &'a Table) -> Rounds<'a> {
        Rounds { speculator: unchecked(parts), p, known: HashMap::new(), runs: 0, forgets: false }
    }

    /// What a round can write, with probabilities.
    fn law(&mut self, context: [u32; 2]) -> &[(Vec<u32>, f64)] {
        if !self.known.contains_key(&context) {
            let mut law: HashMap<Vec<u32>, f64> = HashMap::new();
            let (speculator, p, runs, forgets) = (&mut self.speculator, self.p, &mut self.runs, self.forgets);
            let run = |chance: &RefCell<Branches>| {
                if forgets {
                    speculator.reset();
                    *speculator.cost.borrow_mut() = CostModel::of_curve([1.0, 1.05, 1.1, 1.3, 1.6], &[0.1, 0.1]);
                }
                round(speculator, p, &context, chance)
            };
            Branches::walk(run, |probability, emitted| {
                *law.entry(emitted).or_default() += probability;
                *runs += 1;
            });
            let total: f64 = law.values().sum();
            assert!((total - 1.0).abs() < EXACT, "branches add up to {total}");
            let mut law: Vec<_> = law.into_iter().collect();
            law.sort_by(|a, b| a.0.cmp(&b.0));
            self.known.insert(context, law);
        }
        &self.known[&context]
    }

    /// Adds the law of the next `left` tokens, times `weight`, to `joint`, by their code.
    fn add(&mut self, context: [u32; 2], left: usize, code: usize, weight: f64, joint: &mut [f64]) {
        for (emitted, probability) in self.law(context).to_vec() {
            let taken = &emitted[..emitted.len().min(left)];
            let code = taken.iter().fold(code, |code, &token| code * SIZE + token as usize);
            let weight = weight * probability;
            if taken.len() == left {
                joint[code] += weight;
            } else {
                let last = [&context[..], taken].concat();
                self.add([last[last.len() - 2], last[last.len() - 1]], left - taken.len(), code, weight, joint);
            }
        }
    }

    /// The joint law of the first `count` tokens.
    fn joint(&mut self, count: usize) -> Vec<f64> {
        let mut joint = vec![0.0; SIZE.pow(count as u32)];
        self.add(PROMPT, count, 0, 1.0, &mut joint);
        joint
    }

    /// The most that any sequence of the first tokens is off by. They are one more than the longest round can write, so
    /// that each is of two rounds at least.
    fn error(&mut self) -> f64 {
        let longest = (0..SIZE * SIZE).map(|context| {
            let context = [(context / SIZE) as u32, (context % SIZE) as u32];
            self.law(context).iter().map(|(emitted, _)| emitted.len()).max().unwrap_or(0)
        });
        let count = longest.max().unwrap_or(0) + 1;
        error(&self.joint(count), self.p, count)
    }

    /// Expected number of tokens of a round.
    fn mean_length(&mut self, context: [u32; 2]) -> f64 {
        self.law(context).iter().map(|(emitted, probability)| emitted.len() as f64 * probability).sum()
    }
}

/// The largest difference from the target's own joint law.
fn error(joint: &[f64], p: &Table, count: usize) -> f64 {
    let expected = |code: usize| {
        let mut tokens = PROMPT.to_vec();
        let mut probability = 1.0;
        for place in (0..count).rev() {
            let token = code / SIZE.pow(place as u32) % SIZE;
            probability *= p.after(&tokens)[token];
            tokens.push(token as u32);
        }
        probability
    };
    joint.iter().enumerate().map(|(code, found)| (found - expected(code)).abs()).fold(0.0, f64::max)
}

/// Who drafts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Beams,
    Drawn(ProposalKind),
    /// Beams of one drafter, then draws of another.
    BeamsThenDrawn,
    /// Draws of one drafter, then beams of another.
    DrawnThenBeams,
    /// Draws of two drafters, each from its own q.
    DrawnByTwo,
}

impl Kind {
    const ALL: [Kind; 6] = [
        Kind::Beams,
        Kind::Drawn(ProposalKind::Sampled),
        Kind::Drawn(ProposalKind::SampledWor),
        Kind::BeamsThenDrawn,
        Kind::DrawnThenBeams,
        Kind::DrawnByTwo,
    ];

    fn drafters(self, pair: &Pair) -> Vec<(&Rc<Table>, Mode)> {
        let (q, other) = (&pair.q, &pair.other);
        match self {
            Kind::Beams => vec![(q, Mode::Beams)],
            Kind::Drawn(kind) => vec![(q, Mode::Always(kind))],
            Kind::BeamsThenDrawn => vec![(other, Mode::Beams), (q, Mode::AsTheRuleSays)],
            Kind::DrawnThenBeams => vec![(q, Mode::AsTheRuleSays), (other, Mode::Beams)],
            Kind::DrawnByTwo => vec![(q, Mode::AsTheRuleSays), (other, Mode::AsTheRuleSays)],
        }
    }

    /// Shapes; two drafters give a leaf twice as many children.
    fn shapes(self) -> &'static [Shape] {
        use Shape::{Adaptive, Chain, Widths};
        match self {
            Kind::Beams | Kind::Drawn(_) => {
                &[Chain(2), Chain(3), Widths(&[2, 2]), Widths(&[3, 1]), Widths(&[1, 2]), Adaptive]
            }
            Kind::DrawnByTwo => &[Widths(&[1, 1]), Widths(&[2]), Adaptive],
            _ => &[Widths(&[1, 1]), Widths(&[2]), Widths(&[1, 2]), Adaptive],
        }
    }
}

/// A rule with every shape and every kind of drafter that it says it is exact for.
fn prove(name: &str) {
    let (mut combinations, mut runs, mut worst) = (0, 0, 0.0f64);
    for kind in Kind::ALL {
        let probe = rule(name);
        if matches!(kind, Kind::Drawn(kind) if !probe.supports(kind)) {
            continue;
        }
        for &shape in kind.shapes() {
            if shape == Shape::Adaptive && probe.fixed_width() {
                continue;
            }
            combinations += 1;
            for (index, pair) in Pair::all().enumerate() {
                let parts = parts(&kind.drafters(&pair), shape, rule(name));
                contract::check(&parts).unwrap_or_else(|error| panic!("{name}, {kind:?}, {shape:?}: {error}"));
                let mut rounds = Rounds::new(parts, &pair.p);
                let error = rounds.error();
                assert!(error < EXACT, "{name}, {kind:?}, {shape:?}, pair {index}: off by {error:e}");
                runs += rounds.runs;
                worst = worst.max(error);
            }
        }
    }
    assert!(combinations >= 12, "{name}: {combinations}");
    println!("{name}: {combinations} combinations, {PAIRS} pairs, {runs} rounds: off by at most {worst:e}");
}

#[test]
fn match_is_exact() {
    prove("match");
}

#[test]
fn rejection_is_exact() {
    prove("rejection");
}

#[test]
fn multi_round_is_exact() {
    prove("multi-round");
}

#[test]
fn swor_is_exact() {
    prove("swor");
}

#[test]
fn kseq_is_exact() {
    prove("kseq");
}

#[test]
fn traversal_is_exact() {
    prove("traversal");
}

#[test]
fn every_exact_rule_is_proved_here() {
    let exact = METHODS.iter().filter(|method| {
        matches!(method.make, Make::Accept(..)) && method.exactness() <= Some(Exactness::SameDistribution)
    });
    let names: Vec<_> = exact.map(|method| method.name).collect();
    assert_eq!(names, ["match", "rejection", "multi-round", "swor", "kseq", "traversal"], "each has a proof above");
}

#[test]
fn the_seven_defects_fail() {
    for (name, make) in DEFECTS {
        let errors = Pair::all().map(|pair| Rounds::new(make(&pair.q, &pair.other), &pair.p).error());
        let worst = errors.fold(0.0, f64::max);
        println!("{name}: off by {worst:.3}");
        assert!(worst > BROKEN, "{name}: {worst}");
    }
}

#[test]
fn traversal_is_never_shorter_than_top_down() {
    let mut longer = 0;
    for kind in [ProposalKind::Sampled, ProposalKind::SampledWor] {
        let top_down = if kind == ProposalKind::Sampled { "multi-round" } else { "swor" };
        for shape in [Shape::Chain(3), Shape::Widths(&[2, 2]), Shape::Widths(&[3, 1]), Shape::Widths(&[1, 2])] {
            for pair in Pair::all() {
                let rounds = |name: &str| {
                    let drafters = [(&pair.q, Mode::Always(kind))];
                    Rounds::new(parts(&drafters, shape, rule(name)), &pair.p)
                };
                let (mut traversal, mut other) = (rounds("traversal"), rounds(top_down));
                for context in [[0, 1], PROMPT, [3, 3]] {
                    let (traversal, other) = (traversal.mean_length(context), other.mean_length(context));
                    assert!(traversal > other - 1e-12, "{kind:?}, {shape:?}: {traversal} < {other}");
                    longer += usize::from(traversal > other + 1e-6);
                }
            }
        }
    }
    println!("traversal was longer in {longer} of 600 cases, never shorter");
    assert!(longer > 100, "{longer}");
}

/// Noise keyed by position and purpose alone: a number in the unit interval, of which is known what draws have told.
struct ByPosition<'a> {
    branches: &'a RefCell<Branches>,
    told: HashMap<(usize, Purpose), (f64, f64)>,
    committed: usize,
}

impl ByPosition<'_> {
    /// Which of some intervals that follow each other the number lies in.
    fn interval(&mut self, key: Key, weights: &[f64]) -> usize {
        // Whether a node is kept is asked at its own position, the other draws are of the position after the node.
        let position = self.committed + usize::from(key.node) - usize::from(key.purpose == Purpose::Accept);
        let (low, high) = self.told.get(&(position, key.purpose)).copied().unwrap_or((0.0, 1.0));
        let total: f64 = weights.iter().sum();
        let mut edge = 0.0;
        let bounds: Vec<(f64, f64)> = weights
            .iter()
            .map(|weight| {
                let from = edge;
                edge += weight / total;
                (f64::max(from, low), f64::min(edge, high))
            })
            .collect();
        let widths: Vec<f64> = bounds.iter().map(|(from, to)| (to - from).max(0.0)).collect();
        let chosen = self.branches.borrow_mut().choose(&widths);
        self.told.insert((position, key.purpose), bounds[chosen]);
        chosen
    }
}

impl Chance for ByPosition<'_> {
    fn bernoulli(&mut self, key: Key, p: f64) -> bool {
        let p = p.clamp(0.0, 1.0);
        self.interval(key, &[p, 1.0 - p]) == 0
    }

    fn categorical(&mut self, key: Key, weights: &[f64]) -> usize {
        self.interval(key, weights)
    }
}

/// Joint law of the first three tokens of chains of two with `traversal`, walked over all rounds together.
fn chains_over_rounds(pair: &Pair, by_position: bool) -> Vec<f64> {
    let parts = parts(&[(&pair.q, Mode::Always(ProposalKind::Sampled))], Shape::Chain(2), Box::new(Traversal));
    let mut speculator = unchecked(parts);
    let mut joint = vec![0.0; SIZE.pow(3)];
    let run = |branches: &RefCell<Branches>| {
        let noise = RefCell::new(ByPosition { branches, told: HashMap::new(), committed: 0 });
        let mut tokens = PROMPT.to_vec();
        while tokens.len() < PROMPT.len() + 3 {
            branches.borrow_mut().next_round();
            noise.borrow_mut().committed = tokens.len();
            let chance: &RefCell<dyn Chance> = if by_position { &noise } else { branches };
            tokens.extend(round(&mut speculator, &pair.p, &tokens, chance));
        }
        tokens[PROMPT.len()..][..3].iter().fold(0, |code, &token| code * SIZE + token as usize)
    };
    Branches::walk(run, |probability, code| joint[code] += probability);
    joint
}

#[test]
fn noise_by_position_alone_fails_and_by_round_does_not() {
    let mut worst = [0.0f64; 2];
    for pair in Pair::all() {
        for by_position in [false, true] {
            let error = error(&chains_over_rounds(&pair, by_position), &pair.p, 3);
            let worst = &mut worst[usize::from(by_position)];
            *worst = worst.max(error);
        }
    }
    println!("keyed by round: off by {:e}; by position: {:.3}", worst[0], worst[1]);
    assert!(worst[0] < EXACT && worst[1] > BROKEN, "{worst:?}");
}

/// Parts by their names in configurations, with drafters of tables.
fn configured(config: &str, accept: &str, drafters: &[(&Rc<Table>, Mode)]) -> Parts {
    let config: SpeculationConfig = config.parse().unwrap_or_else(|error| panic!("{config}: {error}"));
    let setup = Setup::new(&config);
    Parts {
        length: setup.length(&config.length).expect("a length policy"),
        shape: setup.shape(&config.tree).expect("a shape"),
        selector: setup.selector(&config.select).expect("a selector"),
        ..parts(drafters, Shape::Chain(2), rule(accept))
    }
}

/// Every shape, length policy and selector there is, with every rule that needs q: it is refused, or it is exact.
#[test]
fn shipped_parts_are_refused_or_exact() {
    let of =
        |key: &'static str, more: &'static str| names(key).into_iter().map(move |name| format!("{key}={name},{more}"));
    let all = of("tree", "num_speculative_tokens=4,length=fixed")
        .chain(of("length", "num_speculative_tokens=2"))
        .chain(of("length", "num_speculative_tokens=4,tree=delayed"))
        .chain(of("select", "num_speculative_tokens=3,length=fixed"));
    let (mut exact, mut refused) = (0, std::collections::BTreeSet::new());
    for config in all {
        for accept in ["rejection", "multi-round", "swor", "kseq", "traversal"] {
            for pair in (0..4).map(Pair::new) {
                let drafters: [&[_]; 3] = [
                    &[(&pair.q, Mode::AsTheRuleSays)],
                    &[(&pair.other, Mode::Beams), (&pair.q, Mode::AsTheRuleSays)],
                    &[(&pair.q, Mode::AsTheRuleSays), (&pair.other, Mode::AsTheRuleSays)],
                ];
                for drafters in drafters {
                    let parts = configured(&config, accept, drafters);
                    if let Err(error) = contract::check(&parts) {
                        assert_eq!(error.code(), "inexact_speculation");
                        refused.insert(error.to_string());
                        continue;
                    }
                    // What is learned in one branch is not known in another.
                    let mut rounds = Rounds { forgets: true, ..Rounds::new(parts, &pair.p) };
                    let error = rounds.error();
                    assert!(error < EXACT, "{config}, {accept}, {} drafters: off by {error:e}", drafters.len());
                    exact += 1;
                }
            }
        }
    }
    println!("{exact} combinations of configurations and tables are exact; these are refused:");
    refused.iter().for_each(|error| println!("{error}"));
    assert!(exact > 500 && refused.len() >= 4, "{exact}, {}", refused.len());
}

/// What the configuration says to parts that would not be exact.
fn refused(parts: &Parts, with: &str) {
    let error = contract::check(parts).expect_err(with);
    let text = error.to_string();
    assert_eq!(error.code(), "inexact_speculation", "{text}");
    let foredraft::error::Error::Inexact { combination, reason, remedy } = &error else { panic!("{text}") };
    assert!(combination.contains(with) && reason.len() > 10 && remedy.contains("use "), "{text}");
    println!("{text}");
}

#[test]
fn the_configuration_refuses_what_would_break_a_ratio_rule() {
    let pair = Pair::new(0);
    let drawn = [(&pair.q, Mode::AsTheRuleSays)];
    let ratio = || parts(&drawn, Shape::Chain(2), rule("traversal"));
    assert!(contract::check(&ratio()).is_ok());
    // a and b: whatever cuts a finished draft has looked past the cut.
    refused(&Parts { length: Box::new(Cutter { says_so: true }), ..ratio() }, "length=cutter");
    let surest: Box<dyn DraftSelector> = Box::new(Surest { says_so: true });
    refused(&Parts { selector: surest, ..ratio() }, "select=surest");
    refused(&Parts { shape: Box::new(Pruner { says_so: true }), ..ratio() }, "tree=pruner");
    refused(&parts(&drawn, Shape::Adaptive, rule("kseq")), "tree=adaptive");
    // f: a rule that asks for draws that it does not support.
    refused(&parts(&drawn, Shape::Chain(2), Box::new(Asks(ProposalKind::SampledWor))), "SampledWor drafts");
    refused(&parts(&[(&pair.q, Mode::Beams)], Shape::Chain(2), Box::new(SampledOnly)), "drafter=table");
}

#[test]
fn point_masses_may_be_cut_pruned_and_chosen_with_any_rule() {
    let pair = Pair::new(0);
    for name in ["match", "traversal", "kseq"] {
        let beams = || parts(&[(&pair.q, Mode::Beams)], Shape::Adaptive, rule(name));
        let all = [
            beams(),
            Parts { length: Box::new(Cutter { says_so: true }), ..beams() },
            Parts { shape: Box::new(Pruner { says_so: true }), ..beams() },
            Parts { selector: Box::new(Picky { says_so: true }), ..beams() },
        ];
        for parts in all {
            contract::check(&parts).unwrap_or_else(|error| panic!("{error}"));
            let error = Rounds::new(parts, &pair.p).error();
            assert!(error < EXACT, "{name}: {error}");
        }
    }
    let drawn = || parts(&[(&pair.q, Mode::AsTheRuleSays)], Shape::Chain(2), rule("match"));
    assert!(contract::check(&Parts { length: Box::new(Cutter { says_so: true }), ..drawn() }).is_ok());
}

/// Parts that cut, prune or turn down drafts without saying so: a round does not let them touch what was sampled.
#[test]
fn a_round_keeps_sampled_drafts_from_parts_that_do_not_say_what_they_do() {
    for pair in Pair::all() {
        let drawn = |nodes| parts(&[(&pair.q, Mode::AsTheRuleSays)], Shape::Chain(nodes), rule("traversal"));
        let all = [
            Parts { length: Box::new(Cutter { says_so: false }), ..drawn(2) },
            Parts { shape: Box::new(Pruner { says_so: false }), ..drawn(4) },
            Parts { selector: Box::new(Picky { says_so: false }), ..drawn(2) },
        ];
        for parts in all {
            assert!(Rounds::new(parts, &pair.p).error() < EXACT);
        }
    }
}

/// At temperature 0 every row is one token, and every rule, lossy or not, writes the greedy text.
#[test]
fn at_temperature_0_every_rule_is_greedy() {
    for seed in 0..5 {
        let pair = Pair::new(seed);
        let one_hot = |table: &Table| {
            let best = |row: &Distribution| row.iter().copied().fold(0.0, f64::max);
            let rows = table.rows.iter().map(|row| {
                let at = row.iter().position(|&p| p == best(row));
                (0..SIZE).map(|token| f64::from(u8::from(Some(token) == at))).collect()
            });
            Rc::new(Table { order: 2, size: SIZE, rows: rows.collect() })
        };
        let (p, q) = (one_hot(&pair.p), one_hot(&pair.q));
        for method in METHODS.iter().filter(|method| matches!(method.make, Make::Accept(..))) {
            let parts = parts(&[(&q, Mode::AsTheRuleSays)], Shape::Widths(&[2, 1]), rule(method.name));
            let error = Rounds::new(parts, &p).error();
            assert!(error < EXACT, "{}: {error}", method.name);
        }
    }
}

use deviants::{Asks, SampledOnly};

/// Rules that promise too little.
mod deviants {
    use foredraft::speculate::accept::{AcceptanceRule, ProposalKind, Traversal};
    use foredraft::speculate::chance::Chance;
    use foredraft::speculate::methods::Method;
    use foredraft::speculate::outcome::{Needs, Row, Verdict};
    use foredraft::speculate::tree::TokenTree;

    /// Asks for draws of a kind that it does not support.
    pub(crate) struct Asks(pub(crate) ProposalKind);

    impl AcceptanceRule for Asks {
        fn name(&self) -> &'static str {
            "asks"
        }

        fn method(&self) -> &'static Method {
            Traversal.method()
        }

        fn needs(&self) -> Needs {
            Traversal.needs()
        }

        fn supports(&self, proposal: ProposalKind) -> bool {
            proposal != self.0
        }

        fn draws(&self) -> ProposalKind {
            self.0
        }

        fn verify(&mut self, tree: &TokenTree, rows: &[Row], chance: &mut dyn Chance) -> Verdict {
            Traversal.verify(tree, rows, chance)
        }
    }

    /// Supports no point masses.
    pub(crate) struct SampledOnly;

    impl AcceptanceRule for SampledOnly {
        fn name(&self) -> &'static str {
            "sampled-only"
        }

        fn method(&self) -> &'static Method {
            Traversal.method()
        }

        fn needs(&self) -> Needs {
            Traversal.needs()
        }

        fn supports(&self, proposal: ProposalKind) -> bool {
            proposal == ProposalKind::Sampled
        }

        fn draws(&self) -> ProposalKind {
            ProposalKind::Sampled
        }

        fn verify(&mut self, tree: &TokenTree, rows: &[Row], chance: &mut dyn Chance) -> Verdict {
            Traversal.verify(tree, rows, chance)
        }
    }
}
