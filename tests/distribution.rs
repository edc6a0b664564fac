//! The ratio rules on real rows of both executors: what they write is distributed as the target's rows say, and the known
//! defects, at the same number of draws, are caught.
//!
//! Rows of SmolLM2 and of its damaged copy as the draft are captured once at a few prefixes, at temperature 0.8 and top-p:
//! after the prefix, and after each of the tokens that either is likely to write there. They make tables in which the last
//! token chooses the row. Then the engine's rounds run on these tables with the keyed noise of production until two tokens
//! are written, and chi-square tests the first one and the pair.

#[path = "support/engine.rs"]
mod engine;
#[path = "support/toy.rs"]
mod toy;

use engine::{DEVICES, prompt, request, smollm2};
use foredraft::engine::DeviceChoice;
use foredraft::model::Model;
use foredraft::plan::{Executor, MAX_COLUMNS, Submission};
use foredraft::sampling::{SamplingParams, distribution};
use foredraft::speculate::accept::ProposalKind;
use foredraft::speculate::accept::residual::likeliest;
use foredraft::speculate::chance::{Chance, Key, KeyedChance, Purpose};
use foredraft::speculate::drafters::DrafterId;
use foredraft::speculate::methods::{METHODS, Make};
use foredraft::speculate::outcome::Needs;
use foredraft::speculate::round::Parts;
use foredraft::speculate::target::{Job, ModelTarget, Target};
use foredraft::speculate::tree::{Candidate, DraftStats, NodeId, TokenTree};
use foredraft::speculate::{SpeculationConfig, Speculator};
use futures_lite::future::block_on;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Instant;
use toy::{DEFECTS, Mode, Shape, Table, TableTarget, parts, rule, unchecked};

/// Texts per seed.
const DRAWS: usize = 100_000;
/// Seeds of the noise.
const SEEDS: [u64; 5] = [1, 2, 3, 5, 8];
/// Least p-value of a rule that is right.
const FAIR: f64 = 1e-4;
/// Beginnings of texts, of one pass each.
const PREFIXES: [&str; 3] = [
    "Once upon a time, in a small village by the sea, there lived a",
    "The three most important things to remember when you travel are",
    "Dear Sir or Madam, I am writing to you because",
];
/// Tokens after a prefix that get a row of their own, of each model.
const BRANCHES: usize = 12;

/// Rows of a target, a draft, and the draft again at a higher temperature, over the tokens that any of them can write.
struct Captured {
    size: usize,
    /// By last token, the prefix last of all.
    rows: [Vec<Vec<f64>>; 3],
}

/// The tokens that a row can write, with their probabilities.
fn positive(row: &[f64]) -> impl Iterator<Item = (u32, f64)> + '_ {
    row.iter().enumerate().filter(|(_, p)| **p > 0.0).map(|(token, &p)| (token as u32, p))
}

/// Logits as the sampler left them, after a prefix, and after each of some tokens behind it.
fn logits(
    executor: &dyn Executor,
    model: &Model,
    prefix: &[u32],
    branches: &[u32],
    sampling: &SamplingParams,
) -> Vec<Vec<f32>> {
    let known = &prefix[..prefix.len() - 1];
    let cached = model.kv.keep_prefix(known, known.len());
    let pending = &known[cached..];
    if !pending.is_empty() {
        let runs = model.feed(cached, pending.len());
        let submission = Submission { tokens: vec![(0, pending.to_vec())], runs, read: (0, 1) };
        block_on(executor.finish(executor.submit(submission).expect("submit"))).expect("finish");
        model.kv.extend(pending);
    }
    let target = ModelTarget { executor, model };
    let mut all = Vec::new();
    for tokens in branches.chunks(MAX_COLUMNS - 1).chain(branches.is_empty().then_some(&[][..])) {
        let mut tree = TokenTree::new(prefix[prefix.len() - 1]);
        for &token in tokens {
            tree.attach(NodeId::ROOT, &Candidate::new(token, DraftStats::of_probability(0.5)), DrafterId(0));
        }
        let job = Job::new(prefix, &tree, sampling, Needs::default());
        block_on(target.verify(job)).expect("a pass");
        let rows = block_on(model.rows(executor, tree.nodes().len())).expect("rows");
        let new = usize::from(!tokens.is_empty());
        all.extend(rows.chunks_exact(model.config.vocabulary).skip(new).map(<[f32]>::to_vec));
    }
    all
}

fn capture(device: DeviceChoice) -> Vec<Captured> {
    let engine = smollm2(device, true);
    let models = [engine.target(), engine.draft().expect("a draft")];
    let warm = SamplingParams { temperature: 0.8, top_p: 0.95, top_k: 20, ..SamplingParams::default() };
    let rows = |all: [Vec<Vec<f32>>; 2]| -> [Vec<Vec<f64>>; 3] {
        // The sampler has divided by the temperature.
        let row = |logits: &Vec<f32>, heat: f32| {
            distribution(&logits.iter().map(|logit| logit / heat).collect::<Vec<_>>(), &warm)
        };
        let of = |which: usize, heat| all[which].iter().map(|logits| row(logits, heat)).collect();
        [of(0, 1.0), of(1, 1.0), of(1, 2.0)]
    };
    let capture = |text: &&str| {
        let prefix = engine.tokenizer().encode(text, false).expect("tokens");
        let mut all = models.map(|model| logits(engine.executor(), model, &prefix, &[], &warm));
        let likely = rows(all.clone()).into_iter().flat_map(|rows| likeliest(&rows[0], BRANCHES));
        let branches: Vec<u32> = likely.collect::<BTreeSet<u32>>().into_iter().collect();
        for (all, model) in all.iter_mut().zip(models) {
            all.extend(logits(engine.executor(), model, &prefix, &branches, &warm));
        }
        let full = rows(all);
        let written = full.iter().flatten().flat_map(|row| positive(row)).map(|(token, _)| token);
        let tokens: Vec<u32> = written.collect::<BTreeSet<u32>>().into_iter().collect();
        let compact = |row: &[f64]| tokens.iter().map(|&token| row[token as usize]).chain([0.0]).collect();
        // A token behind which no row was captured is followed by what follows the prefix.
        let place: BTreeMap<u32, usize> = branches.iter().enumerate().map(|(at, &token)| (token, at + 1)).collect();
        let rows = full.map(|rows| {
            let behind = tokens.iter().map(|token| place.get(token).copied().unwrap_or(0)).chain([0]);
            behind.map(|at| compact(&rows[at])).collect::<Vec<Vec<f64>>>()
        });
        Captured { size: tokens.len() + 1, rows }
    };
    PREFIXES.iter().map(capture).collect()
}

/// Everything that is captured, by device; once.
fn captured(device: DeviceChoice) -> &'static [Captured] {
    static ALL: [OnceLock<Vec<Captured>>; 2] = [OnceLock::new(), OnceLock::new()];
    ALL[usize::from(device == DEVICES[1])].get_or_init(|| {
        let start = Instant::now();
        let all = capture(device);
        println!("{device:?}: captured in {:.1} s", start.elapsed().as_secs_f64());
        for (at, text) in all.iter().zip(PREFIXES) {
            let [p, q, other] = [0, 1, 2].map(|which| at.rows[which].last().expect("of the prefix"));
            let overlap = |q: &[f64]| p.iter().zip(q).map(|(p, q)| p.min(*q)).sum::<f64>();
            let (overlap, hot, tokens) = (overlap(q), overlap(other), at.size - 1);
            println!(
                "{device:?}, {text}: {tokens} tokens; sum of min(p, q) {overlap:.2}, with the hotter draft {hot:.2}"
            );
        }
        all
    })
}

/// Target, draft and hotter draft as tables.
fn tables(captured: &Captured) -> [Rc<Table>; 3] {
    [0, 1, 2].map(|which| {
        let rows = captured.rows[which].iter().map(|row| row.as_slice().into()).collect();
        Rc::new(Table { order: 1, size: captured.size, rows })
    })
}

/// Noise keyed by position and purpose alone.
struct ByPosition {
    noise: KeyedChance,
    committed: usize,
}

impl ByPosition {
    fn key(&self, key: Key) -> Key {
        let position = self.committed + usize::from(key.node) - usize::from(key.purpose == Purpose::Accept);
        Key { node: position as u16, slot: 0, purpose: key.purpose }
    }
}

impl Chance for ByPosition {
    fn bernoulli(&mut self, key: Key, p: f64) -> bool {
        let key = self.key(key);
        self.noise.bernoulli(key, p)
    }

    fn categorical(&mut self, key: Key, weights: &[f64]) -> usize {
        let key = self.key(key);
        self.noise.categorical(key, weights)
    }
}

/// The first two tokens of a text.
fn two_tokens(speculator: &mut Speculator, p: &Table, seed: u64, by_position: bool) -> [u32; 2] {
    let sampling = SamplingParams { temperature: 0.8, ..SamplingParams::default() };
    let mut tokens = vec![p.size as u32 - 1];
    for round in 0.. {
        let by_round = RefCell::new(KeyedChance::new(seed, round));
        let noise = RefCell::new(ByPosition { noise: KeyedChance::new(seed, 0), committed: tokens.len() });
        let chance: &RefCell<dyn Chance> = if by_position { &noise } else { &by_round };
        let target = TableTarget { table: p, chance };
        let outcome = block_on(speculator.round_with(&target, &tokens, &sampling, 100, chance)).expect("a round");
        tokens.extend(outcome.emitted());
        if tokens.len() > 2 {
            break;
        }
    }
    [tokens[1], tokens[2]]
}

/// P-values of the first token and of the pair.
fn p_values(parts: Parts, p: &Table, seed: u64, by_position: bool) -> [f64; 2] {
    let mut speculator = unchecked(parts);
    let mut firsts = vec![0u32; p.size];
    let mut pairs: BTreeMap<[u32; 2], u32> = BTreeMap::new();
    for draw in 0..DRAWS as u64 {
        let pair = two_tokens(&mut speculator, p, seed << 32 | draw, by_position);
        firsts[pair[0] as usize] += 1;
        *pairs.entry(pair).or_default() += 1;
    }
    let root = &p.rows[p.size - 1];
    let of_firsts = root.iter().zip(&firsts).map(|(&p, &count)| (p, count)).collect();
    let mut of_pairs: Vec<(f64, u32)> = Vec::new();
    for (first, weight) in positive(root) {
        for (second, share) in positive(&p.rows[first as usize]) {
            of_pairs.push((weight * share, pairs.remove(&[first, second]).unwrap_or(0)));
        }
    }
    // What is left has no probability at all.
    of_pairs.extend(pairs.into_values().map(|count| (0.0, count)));
    [chi_square(of_firsts), chi_square(of_pairs)]
}

/// P-value of counts by their probabilities: bins of five expected at least, the rest pooled into one.
fn chi_square(bins: Vec<(f64, u32)>) -> f64 {
    let (mut sum, mut freedom, mut tail) = (0.0, -1.0, (0.0, 0.0));
    for (p, count) in bins {
        let (expected, count) = (p * DRAWS as f64, f64::from(count));
        if p == 0.0 && count > 0.0 {
            return 0.0;
        } else if expected >= 5.0 {
            sum += (count - expected).powi(2) / expected;
            freedom += 1.0;
        } else {
            tail = (tail.0 + expected, tail.1 + count);
        }
    }
    if tail.0 >= 5.0 {
        sum += (tail.1 - tail.0).powi(2) / tail.0;
        freedom += 1.0;
    }
    assert!(freedom >= 3.0, "{freedom} degrees of freedom test nothing");
    upper_gamma(0.5 * freedom, 0.5 * sum)
}

/// Q(a, x), the regularised upper incomplete gamma function, by series or continued fraction (Abramowitz and Stegun 6.5).
fn upper_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let front = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0 / a, 1.0 / a);
        for n in 1..100_000 {
            term *= x / (a + f64::from(n));
            sum += term;
            if term < sum * 1e-15 {
                break;
            }
        }
        return 1.0 - front * sum;
    }
    // Lentz's method.
    let tiny = 1e-300;
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / tiny, 1.0 / b);
    let mut fraction = d;
    for n in 1..100_000 {
        let an = -f64::from(n) * (f64::from(n) - a);
        b += 2.0;
        d = an * d + b;
        d = 1.0 / if d.abs() < tiny { tiny } else { d };
        c = b + an / c;
        c = if c.abs() < tiny { tiny } else { c };
        fraction *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// ln Γ(x) by Stirling's series, the argument shifted up to where it is accurate.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 10.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    shift + (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

#[test]
fn p_values_are_those_of_tables() {
    for (freedom, sum, expected) in [(1.0, 3.841_459, 0.05), (10.0, 18.307_038, 0.05), (100.0, 149.449_25, 1e-3)] {
        let found = upper_gamma(0.5 * freedom, 0.5 * sum);
        assert!((found / expected - 1.0).abs() < 1e-4, "{freedom}, {sum}: {found}");
    }
}

/// A rule, and with what it is tested.
type Arm = (&'static str, Shape, &'static [usize]);

/// Table 1 is the draft, 2 the hotter one.
const ARMS: [Arm; 7] = [
    ("rejection", Shape::Chain(2), &[1]),
    ("traversal", Shape::Chain(2), &[1]),
    ("multi-round", Shape::Widths(&[2, 1]), &[1]),
    ("multi-round", Shape::Widths(&[1, 1]), &[1, 2]),
    ("swor", Shape::Widths(&[2, 1]), &[1]),
    ("kseq", Shape::Widths(&[2, 1]), &[1]),
    ("traversal", Shape::Widths(&[2, 1]), &[1]),
];

/// Every seed on rows of the GPU, at one prefix or the other; one seed on those of the CPU.
fn test_arms(arms: &[Arm]) {
    for &(name, shape, drafters) in arms {
        for (at, &seed) in SEEDS.iter().chain(&SEEDS[..1]).enumerate() {
            let device = DEVICES[usize::from(at < SEEDS.len())];
            let tables = tables(&captured(device)[at % PREFIXES.len()]);
            let drafters: Vec<_> = drafters.iter().map(|&which| (&tables[which], Mode::AsTheRuleSays)).collect();
            let [first, pair] = p_values(parts(&drafters, shape, rule(name)), &tables[0], seed, false);
            let prefix = &PREFIXES[at % PREFIXES.len()][..9];
            println!("{name}, {shape:?}, {device:?}, {prefix}, seed {seed}: p = {first:.4} and {pair:.4}");
            assert!(first > FAIR && pair > FAIR, "{name}, {shape:?}, seed {seed}: p = {first:e} and {pair:e}");
        }
    }
}

#[test]
fn chains_are_fair() {
    test_arms(&ARMS[..2]);
}

#[test]
fn multi_round_is_fair() {
    test_arms(&ARMS[2..4]);
}

#[test]
fn swor_and_kseq_are_fair() {
    test_arms(&ARMS[4..6]);
}

#[test]
fn traversal_is_fair() {
    test_arms(&ARMS[6..7]);
}

/// Whether parts are caught at one of the prefixes; how telling one is depends on where its rows differ.
fn caught(name: &str, by_position: bool, make: impl Fn(&Rc<Table>, &Rc<Table>) -> Parts) -> bool {
    PREFIXES.iter().enumerate().rev().any(|(at, prefix)| {
        let [p, q, other] = tables(&captured(DeviceChoice::Gpu)[at]);
        let [first, pair] = p_values(make(&q, &other), &p, SEEDS[0], by_position);
        println!("{name}, {prefix}: p = {first:.1e} and {pair:.1e}");
        first.min(pair) < FAIR
    })
}

#[test]
fn the_defects_are_caught() {
    for (name, make) in DEFECTS {
        assert!(caught(name, false, make), "{name}");
    }
}

#[test]
fn noise_by_position_is_caught() {
    let drafts = |q: &Rc<Table>, _: &Rc<Table>| {
        parts(&[(q, Mode::Always(ProposalKind::Sampled))], Shape::Chain(2), rule("traversal"))
    };
    assert!(caught("noise by position", true, drafts));
}

/// On the model itself: at temperature 0 every rule writes the plain tokens, lossy or not; at 0.8 it drafts and accepts.
#[test]
fn every_rule_runs_on_the_model_and_bad_combinations_do_not() {
    let engine = smollm2(DeviceChoice::Cpu, true);
    let generate = |speculation: String, temperature: f32| {
        let mut request = request(prompt("qa-4"), 12);
        request.sampling = SamplingParams { temperature, seed: 3, ..SamplingParams::default() };
        request.speculation = Some(speculation.parse::<SpeculationConfig>().expect("valid"));
        block_on(engine.generate(request).finish())
    };
    let plain = generate("off".to_owned(), 0.0).expect("plain").tokens;
    for method in METHODS.iter().filter(|method| matches!(method.make, Make::Accept(..))) {
        let name = method.name;
        let drafts = format!("accept={name},drafter=ngram+model,tree=static,length=fixed,num_speculative_tokens=6");
        let greedy = generate(drafts.clone(), 0.0).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(greedy.tokens, plain, "{name}");
        let warm = generate(drafts, 0.8).unwrap_or_else(|error| panic!("{error}"));
        for rounds in [greedy.speculation, warm.speculation] {
            println!("{name}: {} of {} accepted", rounds.accepted, rounds.drafted);
            assert!(rounds.drafted > rounds.accepted && rounds.accepted > 0, "{name}");
        }
    }
    for bad in ["accept=kseq,tree=spine", "accept=traversal,tree=dynamic", "accept=swor,select=vote"] {
        let error = generate(format!("{bad},drafter=ngram+model"), 0.8).expect_err(bad);
        assert_eq!(error.code(), "inexact_speculation", "{error}");
    }
}
