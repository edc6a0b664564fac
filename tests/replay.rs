//! Drafters on real text: SmolLM2's own answers to `prompts/dev.json` are replayed round by round, without the model.
//!
//! `tests/fixtures/traces.json` holds them; `FOREDRAFT_RECORD=1 cargo test --release --test replay` writes it anew.

#[path = "support/engine.rs"]
mod engine;

use foredraft::bench::Trace;
use foredraft::engine::{DeviceChoice, Engine, LoadOptions};
use foredraft::generation::Prompt;
use foredraft::plan::Arithmetic;
use foredraft::plan::RowStats;
use foredraft::sampling::SamplingParams;
use foredraft::speculate::SpeculationConfig;
use foredraft::speculate::config::AUTO_DRAFTERS;
use foredraft::speculate::cost::CostModel;
use foredraft::speculate::drafters::DrafterId;
use foredraft::speculate::memory::Memory;
use foredraft::speculate::methods::Setup;
use foredraft::speculate::outcome::{Needs, RoundOutcome, Totals};
use foredraft::speculate::simulate::SimulatedTarget;
use foredraft::speculate::target::{Job, ModelTarget, Target};
use foredraft::speculate::tree::TokenTree;
use foredraft::text::template::ChatTemplate;
use foredraft::weights::gguf::read_header;
use futures_lite::future::block_on;
use serde_json::Value;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Successors recorded of each row.
const TOP: usize = 8;

fn traces() -> Vec<Trace> {
    serde_json::from_str(include_str!("fixtures/traces.json")).expect("valid")
}

/// Replays one answer.
fn replay(config: &SpeculationConfig, memory: &Memory, trace: &Trace) -> (Totals, Vec<RoundOutcome>) {
    let text = [&trace.prompt[..], &trace.answer].concat();
    let mut target = SimulatedTarget::new(text, CostModel::of_curve([1.0; 5], &[]), 0.0);
    target.stats = vec![None; trace.prompt.len() - 1];
    target.stats.extend(trace.top.iter().map(|top| Some(Rc::new(stats_of(top)))));
    let setup = Setup { memory: Some(memory), ..Setup::new(config) };
    let mut speculator = config.speculator(setup).expect("valid");
    let outcomes = target.replay(&mut speculator, trace.prompt.len()).expect("replayed");
    memory.remember(&target.text, trace.prompt.len());
    let written: Vec<u32> = outcomes.iter().flat_map(|outcome| outcome.emitted()).collect();
    assert_eq!(written, trace.answer, "{}", trace.id);
    (speculator.totals.clone(), outcomes)
}

/// Mean acceptance length by category, the mean of its answers, of a configuration whose stores are empty before each answer.
fn cold(config: &str) -> BTreeMap<String, f64> {
    let config: SpeculationConfig = format!("{config},length=fixed").parse().expect("valid");
    let mut lengths: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for trace in traces() {
        let (totals, _) = replay(&config, &Memory::new(49_152, 0), &trace);
        let length = trace.answer.len() as f64 / totals.rounds as f64;
        lengths.entry(trace.category).or_default().push(length);
    }
    lengths.into_iter().map(|(category, all)| (category, all.iter().sum::<f64>() / all.len() as f64)).collect()
}

/// The default.
const CASCADE: &str = AUTO_DRAFTERS[0];

/// Drafters that draft alone; `recycling` learns from rows, of which a recording has those of the path only.
const SINGLE: [&str; 7] = ["ngram", "suffix", "sam", "sam,sam_min_match=5", "hierarchy", "recycling", "reuse(ngram)"];

/// Prints a table, categories as columns.
fn print(title: &str, rows: &[(String, BTreeMap<String, f64>)]) {
    let categories: Vec<&String> = rows[0].1.keys().collect();
    println!("\n{title:34}{}", categories.iter().map(|category| format!("{category:>14}")).collect::<String>());
    for (name, lengths) in rows {
        println!("{name:34}{}", lengths.values().map(|length| format!("{length:14.2}")).collect::<String>());
    }
}

#[test]
fn drafters_reach_their_lengths_on_real_text() {
    let table = |tail: &str, names: &[&str]| -> Vec<(String, BTreeMap<String, f64>)> {
        names.iter().map(|name| ((*name).to_owned(), cold(&format!("drafter={name}{tail}")))).collect()
    };
    let cascades = ["suffix+recycling", "sam+recycling", "suffix+ngram", "reuse(suffix)+recycling"];
    let all: Vec<&str> = SINGLE.into_iter().chain(cascades).collect();
    let (own, long) = (table("", &all), table(",num_speculative_tokens=15", &all));
    print("their own lengths", &own);
    print("up to 15 tokens", &long);
    let of = |table: &[(String, BTreeMap<String, f64>)], name: &str| {
        table.iter().find(|row| row.0 == name).unwrap_or_else(|| panic!("no row {name}")).1.clone()
    };
    let cascade = of(&long, CASCADE);
    for (category, bar) in [("code-edit", 5.5), ("copy", 3.5), ("rag", 2.5), ("translation", 2.5)] {
        assert!(cascade[category] >= bar, "{category}: {:.2}, expected {bar}", cascade[category]);
    }
    for name in SINGLE {
        for (category, length) in of(&own, name).iter().chain(&of(&long, name)) {
            assert!(cascade[category] >= 0.95 * length, "{category}: {:.2}, {name} {length:.2}", cascade[category]);
        }
    }
    let ngram = of(&own, "ngram");
    for category in ["code-edit", "copy", "rag", "translation"] {
        assert!(ngram[category] > 1.5, "{category}: ngram {:.2}", ngram[category]);
        for name in ["suffix", "sam"] {
            let length = of(&own, name)[category];
            assert!(length >= ngram[category], "{category}: {name} {length:.2}, ngram {:.2}", ngram[category]);
        }
    }
}

#[test]
fn an_answer_that_is_asked_for_again_comes_from_the_store() {
    let config: SpeculationConfig = "drafter=suffix,length=fixed".parse().expect("valid");
    // All answers share one store, as all requests of an engine do; then it is saved, loaded, and all are asked for again.
    let memory = Memory::new(49_152, 0);
    let pass = |memory: &Memory| -> f64 {
        let all = traces();
        let lengths =
            all.iter().map(|trace| trace.answer.len() as f64 / replay(&config, memory, trace).0.rounds as f64);
        lengths.sum::<f64>() / all.len() as f64
    };
    let first = pass(&memory);
    let saved = memory.suffix.borrow().save();
    let loaded = Memory::new(49_152, 0);
    loaded.suffix.borrow_mut().load(&saved).expect("valid");
    let second = pass(&loaded);
    println!("mean acceptance length {first:.2}, the second time {second:.2}; {} bytes saved", saved.len());
    assert!(second >= 5.0 && first < 4.0, "{first:.2}, then {second:.2}");
}

/// What drafters say of their candidates is what comes true: expected calibration error over the judged nodes, in bins of
/// claimed probability.
#[test]
fn probabilities_are_truthful() {
    for name in SINGLE.into_iter().chain(["suffix+recycling"]) {
        let config: SpeculationConfig =
            format!("drafter={name},length=fixed,num_speculative_tokens=15").parse().expect("valid");
        let mut bins = [(0u32, 0.0f64); 10];
        for trace in traces() {
            for outcome in replay(&config, &Memory::new(49_152, 0), &trace).1 {
                for (node, accepted) in outcome.judged() {
                    let claimed = outcome.tree.node(node).stats.logq.exp();
                    let bin = &mut bins[((claimed * 10.0) as usize).min(9)];
                    *bin = (bin.0 + 1, bin.1 + f64::from(claimed) - f64::from(u8::from(accepted)));
                }
            }
        }
        let judged: u32 = bins.iter().map(|bin| bin.0).sum();
        let error = bins.iter().map(|bin| bin.1.abs()).sum::<f64>() / f64::from(judged);
        println!("{name:24} calibration error {error:.3} over {judged} nodes");
        assert!(error < 0.1, "{name}: {error:.3}");
    }
}

/// The model as it was when the answers were recorded: in f32.
fn recorded_model() -> Engine {
    let mut options = LoadOptions::new(engine::model("smollm2-135m-instruct.gguf"));
    options.device = DeviceChoice::Cpu;
    options.arithmetic = Some(Arithmetic::F32);
    options.context = Some(1024);
    engine::load(options)
}

/// The engine makes the rounds that the replay says: mean acceptance of each within 3 % over its answers.
#[test]
fn the_engine_does_as_the_replay_says() {
    let smollm2 = recorded_model();
    let every = if engine::full() { 1 } else { 8 };
    for name in ["ngram", "suffix", "sam", "suffix+recycling"] {
        let config: SpeculationConfig =
            format!("drafter={name},length=fixed,num_speculative_tokens=15").parse().expect("valid");
        let (mut tokens, mut replayed, mut rounds) = (0, 0, 0);
        for trace in traces().iter().rev().step_by(every) {
            smollm2.reset_learned();
            let mut request = engine::request(Prompt::Tokens(trace.prompt.clone()), trace.answer.len());
            request.speculation = Some(config.clone());
            let summary = engine::run(smollm2.generate(request));
            assert!(trace.answer.starts_with(&summary.tokens), "{name} on {}", trace.id);
            tokens += trace.answer.len();
            rounds += summary.speculation.rounds;
            replayed += replay(&config, &Memory::new(49_152, 0), trace).0.rounds;
        }
        let (found, expected) = (tokens as f64 / rounds as f64, tokens as f64 / replayed as f64);
        println!("{name}: {found:.3} tokens a pass on the engine, {expected:.3} replayed");
        assert!((found / expected - 1.0).abs() < 0.03, "{name}: {found:.3}, replayed {expected:.3}");
    }
}

/// The likeliest tokens, the lowest id first of equals.
fn likeliest(size: usize, score: impl Fn(usize) -> f64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..size as u32).collect();
    order.select_nth_unstable_by(TOP, |a, b| score(*b as usize).total_cmp(&score(*a as usize)).then(a.cmp(b)));
    order.truncate(TOP);
    order.sort_by(|a, b| score(*b as usize).total_cmp(&score(*a as usize)).then(a.cmp(b)));
    order
}

/// Statistics that know the likeliest tokens only.
fn stats_of(top: &[u32]) -> RowStats {
    let top = top.iter().map(|&token| (token, 0.0)).collect();
    RowStats { entropy: 0.0, second_moment: 0.0, sample_logp: 0.0, top, drawn: Vec::new() }
}

/// The recording is what the model writes: greedy answers with the end token where there is one, and the likeliest successors
/// of the prompt's last token and of each token of the answer but its last. One answer of it, or all in the long form;
/// `FOREDRAFT_RECORD=1` writes the fixture anew.
#[test]
fn the_recording_is_what_the_model_writes() {
    let record = std::env::var_os("FOREDRAFT_RECORD").is_some();
    let recorded = traces();
    let mut source = engine::model("smollm2-135m-instruct.gguf");
    let header = block_on(read_header(source.as_mut())).expect("header");
    let template = ChatTemplate::from_metadata(&header.metadata).expect("template").expect("a chat model");
    let smollm2 = recorded_model();
    let tokenizer = smollm2.tokenizer();
    let special = |token: Option<u32>| token.map_or("", |token| tokenizer.token_text(token));
    let suite: Value = serde_json::from_str(include_str!("prompts/dev.json")).expect("valid");
    let mut traces = Vec::new();
    for (index, item) in suite["prompts"].as_array().expect("prompts").iter().enumerate() {
        if !record && !engine::full() && item["id"] != "qa-4" {
            continue;
        }
        let text = template.render(&item["messages"], None, true, special(tokenizer.bos()), special(tokenizer.eos()));
        let prompt = tokenizer.encode(&text.expect("rendered"), true).expect("encoded");
        let max_tokens = item["max_tokens"].as_u64().expect("max_tokens") as usize;
        let mut request = engine::request(Prompt::Tokens(prompt.clone()), max_tokens);
        request.speculation = Some(SpeculationConfig::off());
        let mut answer = engine::run(smollm2.generate(request)).tokens;
        if answer.len() < max_tokens {
            let end = greedy_rows(&smollm2, &[&prompt[..], &answer].concat(), prompt.len() + answer.len())[0][0];
            assert!(tokenizer.is_end(end), "what stopped the answer is {end}");
            answer.push(end);
        }
        let all = [&prompt[..], &answer[..answer.len() - 1]].concat();
        let top = greedy_rows(&smollm2, &all, prompt.len());
        assert!(top.iter().zip(&answer).all(|(row, token)| row[0] == *token), "{}: rows and text differ", item["id"]);
        let (id, category) = (&item["id"], &item["category"]);
        if !record {
            let trace = &recorded[index];
            assert_eq!((id.as_str(), category.as_str()), (Some(&*trace.id), Some(&*trace.category)));
            assert_eq!((&prompt, &answer), (&trace.prompt, &trace.answer), "{id}");
            assert_eq!(top, trace.top, "{id}");
        }
        let [id, category] = [id, category].map(|name| name.as_str().expect("a name").to_owned());
        traces.push(Trace { id, category, prompt, answer, top });
    }
    assert!(!traces.is_empty(), "something was compared");
    if !record {
        return;
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/traces.json");
    std::fs::write(path, serde_json::to_string(&traces).expect("serialised") + "\n").expect("written");
}

/// Likeliest successors of each token of `all` from the one before index `from` on.
fn greedy_rows(smollm2: &foredraft::engine::Engine, all: &[u32], from: usize) -> Vec<Vec<u32>> {
    let model = smollm2.target();
    let target = ModelTarget { executor: smollm2.executor(), model };
    let sampling = SamplingParams { temperature: 1.0, ..SamplingParams::default() };
    let needs = Needs { p: true, ..Needs::default() };
    let mut rows = Vec::new();
    for at in (from..=all.len()).step_by(16) {
        assert_eq!(model.kv.keep_prefix(all, at - 1), at - 1, "the answer was just written");
        let tree = TokenTree::chain(all[at - 1], &all[at..all.len().min(at + 15)], DrafterId(0));
        let job = Job::new(&all[..at], &tree, &sampling, needs);
        let verified = block_on(target.verify(job)).expect("verified");
        let path: Vec<_> = tree.ids().skip(1).collect();
        target.commit(&all[..at], &tree, &path);
        for row in verified.rows {
            let p = row.p.expect("asked for");
            rows.push(likeliest(p.len(), |token| p[token]));
        }
    }
    rows
}
