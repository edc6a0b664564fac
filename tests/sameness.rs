//! Speculation changes no token: on and off give the same, whatever drafts, at any temperature, on both executors.
//! Every comparison also asserts that drafts were accepted and rejected, so that it cannot pass by not speculating.

#[path = "support/engine.rs"]
mod engine;
#[path = "support/gguf.rs"]
#[allow(dead_code, reason = "only its random numbers are used here")]
mod gguf;

use engine::{DEVICES, all_prompts, full, load, model, prompt, request, run, smollm2};
use foredraft::engine::{DeviceChoice, Engine, LoadOptions};
use foredraft::generation::Prompt;
use foredraft::sampling::SamplingParams;
use foredraft::speculate::{SpeculationConfig, methods};
use std::collections::{BTreeMap, BTreeSet};

const PROMPTS: [&str; 4] = ["qa-2", "translation-1", "code-edit-2", "code-edit-1"];

fn samplings() -> [(&'static str, SamplingParams); 2] {
    let greedy = SamplingParams::default();
    let warm = SamplingParams { temperature: 0.8, top_p: 0.95, seed: 7, ..SamplingParams::default() };
    [("temperature 0", greedy), ("temperature 0.8, top-p 0.95", warm)]
}

/// Tokens of one run, with drafted and accepted.
fn tokens(
    engine: &Engine,
    id: &str,
    count: usize,
    sampling: &SamplingParams,
    speculation: &str,
) -> (Vec<u32>, u64, u64) {
    let mut request = request(prompt(id), count);
    request.sampling = sampling.clone();
    request.speculation = Some(speculation.parse::<SpeculationConfig>().expect("valid"));
    let summary = run(engine.generate(request));
    let rounds = &summary.speculation;
    // A plain step that was submitted ahead of the answer's end was in vain; whether it was is up to the device.
    let in_vain = u64::from(speculation == "off" && engine.gpu().is_some() && summary.end_token.is_some());
    assert_eq!(rounds.submits, rounds.maps, "one submit and one map a round");
    assert!((rounds.rounds..=rounds.rounds + in_vain).contains(&rounds.submits), "one submit a round: {rounds:?}");
    (summary.tokens, rounds.drafted, rounds.accepted)
}

fn compare(engine: &Engine, prompts: &[String], count: usize, name: &str, sampling: &SamplingParams) {
    let mut totals =
        [("drafter=ngram,length=fixed", 0, 0), ("drafter=model,length=fixed,num_speculative_tokens=3", 0, 0)];
    for id in prompts {
        let (plain, none, _) = tokens(engine, id, count, sampling, "off");
        assert_eq!(none, 0, "nothing is drafted with speculation off");
        for (speculation, drafted, accepted) in &mut totals {
            let (same, more_drafted, more_accepted) = tokens(engine, id, count, sampling, speculation);
            assert_eq!(same, plain, "{id}, {name}, {speculation}, on {:?}", engine.device());
            (*drafted, *accepted) = (*drafted + more_drafted, *accepted + more_accepted);
        }
    }
    for (speculation, drafted, accepted) in totals {
        println!("{name}, {speculation}: {accepted} of {drafted} accepted on {}", engine.device().name);
        assert!(accepted > 0 && accepted < drafted, "{name}, {speculation}: {accepted} of {drafted} drafts accepted");
        if speculation.starts_with("drafter=model") {
            let rate = accepted as f64 / drafted as f64;
            assert!(rate > 0.1 && rate < 0.9, "the draft model must agree at times: {rate}");
        }
    }
}

fn same_tokens(device: DeviceChoice) {
    let engine = smollm2(device, true);
    let (prompts, count) = match full() {
        true => (all_prompts(), 96),
        false => (PROMPTS.map(str::to_owned).to_vec(), 32),
    };
    for (name, sampling) in samplings() {
        compare(&engine, &prompts, count, name, &sampling);
    }
    // Processor state is per tree node: each row sees its own ancestors.
    let processed = SamplingParams {
        repeat_penalty: 1.1,
        presence_penalty: 0.1,
        frequency_penalty: 0.05,
        top_k: 40,
        logit_bias: vec![(28, 0.5), (30, -1.0), (198, 0.25)],
        ..samplings()[1].1.clone()
    };
    compare(&engine, &prompts[1..3], count, "repeat penalty, top-k 40, logit bias", &processed);
    let seed = |seed| SamplingParams { seed, ..samplings()[1].1.clone() };
    let (one, ..) = tokens(&engine, PROMPTS[0], 24, &seed(1), "off");
    let (other, ..) = tokens(&engine, PROMPTS[0], 24, &seed(2), "off");
    assert_ne!(one, other, "another seed gives another text");
}

/// The other architecture: head norms, post-norms, a window, an embedding that is split where a binding is too small.
#[test]
fn gemma3_says_the_same() {
    for device in DEVICES {
        let mut options = LoadOptions::new(model("gemma-3-270m.gguf"));
        options.device = device;
        options.context = Some(256);
        let engine = load(options);
        let text = "Monday: rain, wind, rain. Tuesday: rain, wind, sun. Wednesday: rain, wind, rain. Thursday: rain,";
        let (mut drafted, mut accepted) = (0, 0);
        for (name, sampling) in samplings() {
            let run = |speculation: &str| {
                let mut request = request(Prompt::Text(text.to_owned()), 32);
                request.sampling = sampling.clone();
                request.speculation = Some(speculation.parse().expect("valid"));
                run(engine.generate(request))
            };
            let (plain, same) = (run("off"), run("drafter=ngram,length=fixed"));
            assert_eq!(same.tokens, plain.tokens, "{name} on {device:?}");
            drafted += same.speculation.drafted;
            accepted += same.speculation.accepted;
        }
        assert!(accepted > 0 && accepted < drafted, "{accepted} of {drafted} drafts accepted on {device:?}");
    }
}

#[test]
fn same_tokens_on_the_cpu() {
    same_tokens(DeviceChoice::Cpu);
}

#[test]
fn same_tokens_on_the_gpu() {
    same_tokens(DeviceChoice::Gpu);
}

/// The target's own first layers draft: the same weights, the same cache, no tokens lost.
#[test]
fn the_target_drafts_for_itself() {
    for device in DEVICES {
        let engine = smollm2(device, false);
        // All layers are always right, two thirds of them sometimes.
        for (layers, all_right) in [(30, true), (24, false)] {
            for (name, sampling) in samplings() {
                let speculation = format!("drafter=self,self_layers={layers},num_speculative_tokens=3,length=fixed");
                let (plain, ..) = tokens(&engine, "qa-2", 16, &sampling, "off");
                let (same, drafted, accepted) = tokens(&engine, "qa-2", 16, &sampling, &speculation);
                assert_eq!(same, plain, "{name}, {layers} layers on {device:?}");
                println!("{layers} layers, {name}: {accepted} of {drafted} accepted on {device:?}");
                if all_right {
                    assert!(drafted > 8 && accepted == drafted, "{accepted} of {drafted} by the whole model");
                }
            }
        }
    }
}

/// A configuration of every kind of part but the rule, which is `match` throughout.
#[derive(Debug, Clone)]
struct Configuration {
    drafters: Vec<&'static str>,
    others: [&'static str; 4],
}

/// What `corpus` copies from.
const CORPUS: &str = include_str!("prompts/dev.json");

const OTHERS: [&str; 4] = ["tree", "length", "select", "kv"];

impl Configuration {
    /// Pairs of (key, name) that meet in it.
    fn pairs(&self) -> BTreeSet<[(&'static str, &'static str); 2]> {
        let drafters = self.drafters.iter().map(|&name| ("drafter", name));
        let mut parts: Vec<_> = drafters.chain(OTHERS.into_iter().zip(self.others)).collect();
        parts.sort_unstable();
        let pairs = parts.iter().enumerate().flat_map(|(at, &a)| parts[at + 1..].iter().map(move |&b| [a, b]));
        pairs.filter(|[a, b]| a.0 != b.0).collect()
    }

    fn text(&self) -> String {
        let others: Vec<_> = OTHERS.iter().zip(self.others).map(|(key, name)| format!("{key}={name}")).collect();
        // `slo` would be content with a plain step.
        let rest = "num_speculative_tokens=7,max_ms_per_token=0";
        format!("drafter={},{},{rest}", self.drafters.join("+"), others.join(","))
    }
}

/// Configurations in which every two methods of different kinds meet. Each asks several drafters, so that one covers several
/// pairs; of the other kinds it has one each, so there are at least as many as pairs of the two largest of those. Greedy over
/// random candidates, the same every time.
fn covering() -> Vec<Configuration> {
    const DRAFTERS_AT_ONCE: usize = 6;
    let names = OTHERS.map(methods::names);
    let drafters = methods::names("drafter");
    let mut open: BTreeSet<_> = BTreeSet::new();
    for drafter in &drafters {
        for (key, names) in OTHERS.iter().zip(&names) {
            open.extend(names.iter().map(|&name| {
                let mut pair = [("drafter", *drafter), (*key, name)];
                pair.sort_unstable();
                pair
            }));
        }
    }
    for (at, a) in OTHERS.iter().enumerate() {
        for (b, others) in OTHERS.iter().zip(&names).skip(at + 1) {
            for &one in &names[at] {
                open.extend(others.iter().map(|&other| {
                    let mut pair = [(*a, one), (*b, other)];
                    pair.sort_unstable();
                    pair
                }));
            }
        }
    }
    let mut random = gguf::Random(11);
    let mut pick = |count: usize| random.next() as usize % count;
    let mut chosen = Vec::new();
    while !open.is_empty() {
        let mut candidate = || {
            let mut some: Vec<&'static str> = Vec::new();
            while some.len() < DRAFTERS_AT_ONCE.min(drafters.len()) {
                let name = drafters[pick(drafters.len())];
                if !some.contains(&name) {
                    some.push(name);
                }
            }
            Configuration { drafters: some, others: [0, 1, 2, 3].map(|at| names[at][pick(names[at].len())]) }
        };
        let candidates: Vec<_> = (0..400).map(|_| candidate()).collect();
        let fresh = |candidate: &Configuration| candidate.pairs().intersection(&open).count();
        let best = candidates.into_iter().max_by_key(fresh).expect("candidates");
        for pair in best.pairs() {
            open.remove(&pair);
        }
        chosen.push(best);
    }
    chosen
}

/// Every two methods of different kinds meet, and the text stays that of plain decoding.
fn pairwise_on(device: DeviceChoice, every: usize) {
    let engine = smollm2(device, true);
    let configurations = covering();
    let mut sizes = OTHERS.map(|key| methods::names(key).len());
    sizes.sort_unstable();
    let least = sizes[2] * sizes[3];
    println!("{} configurations cover all pairs; no fewer than {least} could", configurations.len());
    assert!(configurations.len() <= least + least / 5, "{} configurations", configurations.len());
    let (id, count) = ("code-edit-2", 12);
    let plain = samplings().map(|(_, sampling)| {
        let mut request = request(prompt(id), count);
        request.sampling = sampling;
        request.speculation = Some("off".parse().expect("valid"));
        run(engine.generate(request)).tokens
    });
    let mut tallies = BTreeMap::new();
    for configuration in configurations.iter().step_by(every) {
        let (mut drafted, mut accepted) = (0, 0);
        for ((name, sampling), plain) in samplings().into_iter().zip(&plain) {
            let mut request = request(prompt(id), count);
            request.sampling = sampling;
            let mut speculation: SpeculationConfig = configuration.text().parse().expect("valid");
            speculation.corpus = Some(CORPUS.to_owned());
            request.speculation = Some(speculation);
            let summary = run(engine.generate(request));
            assert_eq!(summary.tokens, *plain, "{name}, {} on {device:?}", configuration.text());
            drafted += summary.speculation.drafted;
            accepted += summary.speculation.accepted;
        }
        println!("{accepted} of {drafted} accepted: {}", configuration.text());
        for name in configuration.drafters.iter().chain(&configuration.others) {
            let tally: &mut (u64, u64) = tallies.entry(name).or_default();
            *tally = (tally.0 + accepted, tally.1 + drafted - accepted);
        }
    }
    let all = tallies.values().fold((0, 0), |sum, tally| (sum.0 + tally.0, sum.1 + tally.1));
    assert!(all.0 > 0 && all.1 > 0, "{} drafts were accepted and {} rejected", all.0, all.1);
    // A part of the configurations may hold a method once, in a run too short for it.
    for (name, (accepted, rejected)) in tallies.into_iter().filter(|_| every == 1) {
        assert!(accepted > 0 && rejected > 0, "with {name} {accepted} drafts were accepted and {rejected} rejected");
    }
}

#[test]
fn every_pair_of_methods_says_the_same_on_the_cpu() {
    pairwise_on(DeviceChoice::Cpu, 1);
}

#[test]
fn pairs_of_methods_say_the_same_on_the_gpu() {
    pairwise_on(DeviceChoice::Gpu, if full() { 1 } else { 8 });
}
