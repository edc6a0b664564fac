//! Every host drafter × shape × length policy × selector of the registry writes the target's own text, token by token: the
//! target is a toy, so the whole product is run. After a reset each does the same again. What is added to the registry joins by
//! itself.

use foredraft::sampling::SamplingParams;
use foredraft::speculate::SpeculationConfig;
use foredraft::speculate::contract;
use foredraft::speculate::cost::CostModel;
use foredraft::speculate::drafters::Drafter;
use foredraft::speculate::methods::{METHODS, Make, Setup, names};
use foredraft::speculate::outcome::Tally;
use foredraft::speculate::round::{Parts, Speculator};
use foredraft::speculate::simulate::{ToyDrafter, ToyModel, ToyTarget};
use std::collections::BTreeMap;
use std::time::Instant;

const MODEL: ToyModel = ToyModel { vocabulary: 48, seed: 11 };
const PROMPT: usize = 24;
const TOKENS: usize = 40;

fn target() -> ToyTarget {
    ToyTarget::new(MODEL, CostModel::of_curve([1.0, 1.05, 1.1, 1.3, 1.6], &[]), 0.1)
}

fn sampling(temperature: f32) -> SamplingParams {
    SamplingParams { temperature, seed: 21, ..SamplingParams::default() }
}

/// Names of drafters that run on the host without a model; those that wrap another wrap `ngram`.
fn host_drafters(config: &SpeculationConfig) -> (Vec<String>, Vec<String>) {
    let (mut usable, mut left_out) = (Vec::new(), Vec::new());
    let setup = Setup::new(config);
    for method in METHODS.iter().filter(|method| matches!(method.make, Make::Drafter(_))) {
        let forms = [method.name.to_owned(), format!("{}(ngram)", method.name)];
        let made = forms.iter().find(|form| setup.drafter(form).is_ok_and(|drafter| !drafter.on_device()));
        match made {
            Some(form) => usable.push(form.clone()),
            None => {
                assert!(!method.needs.is_empty(), "{} needs nothing and cannot be made", method.name);
                left_out.push(method.name.to_owned());
            }
        }
    }
    (usable, left_out)
}

/// A companion for each drafter, so that selectors have a choice: the toy draft model, on the host or on the device by turns.
fn speculator(config: &SpeculationConfig, drafter: &str, on_device: bool) -> Speculator {
    let setup = Setup::new(config);
    let toy = ToyDrafter { model: MODEL, knows: 0.6, on_device, seed: 4 };
    let drafters: Vec<Box<dyn Drafter>> = vec![setup.drafter(drafter).expect(drafter), Box::new(toy)];
    let parts = Parts {
        drafters,
        length: setup.length(&config.length).expect("length"),
        shape: setup.shape(&config.tree).expect("tree"),
        rule: setup.rule("match").expect("match"),
        selector: setup.selector(&config.select).expect("select"),
    };
    contract::check(&parts).expect("match goes with everything");
    Speculator::new(parts, "on".to_owned())
}

/// Runs configurations and adds up what was drafted and accepted.
struct Product {
    target: ToyTarget,
    /// The text at each temperature: a prompt of the same kind, so that there is something to copy from the start, and an answer.
    plain: Vec<(f32, Vec<u32>)>,
    tallies: BTreeMap<(&'static str, String), Tally>,
    runs: usize,
}

impl Product {
    fn run(&mut self, config: &SpeculationConfig, drafter: &str) {
        let mut speculator = speculator(config, drafter, self.runs.is_multiple_of(3));
        let (temperature, plain) = &self.plain[self.runs % self.plain.len()];
        let mut write = || {
            // Costs belong to the device, not to the request.
            *speculator.cost.borrow_mut() = CostModel::default();
            let written = self.target.write(&mut speculator, &plain[..PROMPT], TOKENS, &sampling(*temperature));
            let (text, outcomes) = written.unwrap_or_else(|error| panic!("{drafter} {config:?}: {error}"));
            assert_eq!(&text, plain, "{drafter} {config:?}");
            let tally = speculator.totals.all;
            speculator.reset();
            let rounds: Vec<_> = outcomes.into_iter().map(|outcome| (outcome.tree, outcome.verdict)).collect();
            (tally, rounds)
        };
        let (tally, rounds) = write();
        assert_eq!(rounds, write().1, "{drafter} {config:?}: a reset forgets everything");
        for (kind, name) in [
            ("drafter", drafter),
            ("length", &config.length),
            ("estimator", &config.estimator),
            ("tree", &config.tree),
            ("select", &config.select),
        ] {
            let sum = self.tallies.entry((kind, name.to_owned())).or_default();
            sum.drafted += tally.drafted;
            sum.accepted += tally.accepted;
        }
        self.runs += 1;
    }
}

#[test]
fn every_combination_writes_the_text_of_the_target() {
    let start = Instant::now();
    let target = target();
    let plain = |temperature| (temperature, target.plain(&[7, 3], PROMPT + TOKENS - 2, &sampling(temperature)));
    let plain = [0.0, 0.8].map(plain).to_vec();
    let mut product = Product { target, plain, tallies: BTreeMap::new(), runs: 0 };
    let corpus = "fn main() { let corpus = 1; }\n".repeat(4);
    // No toy is slow enough for a target of `slo` to be missed, unless there is none that could be met.
    let options = BTreeMap::from([("max_ms_per_token".to_owned(), 0.0)]);
    let base =
        SpeculationConfig { corpus: Some(corpus), num_speculative_tokens: Some(7), options, ..Default::default() };
    let (drafters, left_out) = host_drafters(&base);
    for length in names("length") {
        let base = SpeculationConfig { length: length.to_owned(), ..base.clone() };
        for tree in names("tree") {
            let base = SpeculationConfig { tree: tree.to_owned(), ..base.clone() };
            for select in names("select") {
                let config = SpeculationConfig { select: select.to_owned(), ..base.clone() };
                drafters.iter().for_each(|drafter| product.run(&config, drafter));
            }
            for estimator in names("estimator") {
                let config = SpeculationConfig { estimator: estimator.to_owned(), ..base.clone() };
                product.run(&config, &drafters[0]);
            }
        }
    }
    for ((kind, name), tally) in &product.tallies {
        println!("{kind:9} {name:16} {} of {} accepted", tally.accepted, tally.drafted);
        assert!(0 < tally.accepted && tally.accepted < tally.drafted, "{kind}={name}: {tally:?}");
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{} combinations in {seconds:.1} s; left out: {}", product.runs, left_out.join(", "));
}
