//! Drafters on real text: SmolLM2's own answers to `prompts/dev.json` are replayed round by round, without the model.
//!
//! `tests/fixtures/traces.json` holds them; `cargo test --release --test replay -- --ignored record` writes it anew.

#[path = "support/engine.rs"]
mod engine;

use foredraft::engine::DeviceChoice;
use foredraft::error::Result;
use foredraft::generation::Prompt;
use foredraft::plan::RowStats;
use foredraft::sampling::SamplingParams;
use foredraft::speculate::SpeculationConfig;
use foredraft::speculate::cost::CostModel;
use foredraft::speculate::drafters::suffix_store::SuffixStore;
use foredraft::speculate::drafters::{DraftPass, DrafterId};
use foredraft::speculate::memory::Memory;
use foredraft::speculate::methods::Setup;
use foredraft::speculate::outcome::{Needs, RoundOutcome, Totals};
use foredraft::speculate::simulate::SimulatedTarget;
use foredraft::speculate::target::{Job, ModelTarget, Target, Verified};
use foredraft::speculate::tree::{NodeId, TokenTree};
use foredraft::store::LocalFuture;
use foredraft::text::template::ChatTemplate;
use foredraft::weights::gguf::read_header;
use futures_lite::future::block_on;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Successors recorded of each row.
const TOP: usize = 8;

/// A recorded answer.
struct Trace {
    id: String,
    category: String,
    prompt: Vec<u32>,
    answer: Vec<u32>,
    /// Likeliest successors of the last token of the prompt and of each of the answer but the last.
    top: Vec<Vec<u32>>,
}

fn traces() -> Vec<Trace> {
    let all: Vec<Value> = serde_json::from_str(include_str!("fixtures/traces.json")).expect("valid");
    let tokens = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).expect("tokens") };
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let read = |trace: &Value| Trace {
        id: text(&trace["id"]),
        category: text(&trace["category"]),
        prompt: tokens(&trace["prompt"]),
        answer: tokens(&trace["answer"]),
        top: trace["top"].as_array().expect("rows").iter().map(tokens).collect(),
    };
    all.iter().map(read).collect()
}

/// Replays one answer.
fn replay(config: &SpeculationConfig, memory: &Memory, trace: &Trace) -> (Totals, Vec<RoundOutcome>) {
    let text = [&trace.prompt[..], &trace.answer].concat();
    let mut target = SimulatedTarget::new(text, CostModel::of_curve([1.0; 5], &[]), 0.0);
    target.stats = vec![None; trace.prompt.len() - 1];
    target.stats.extend(trace.top.iter().map(|top| Some(Rc::new(stats_of(top)))));
    let setup = Setup { memory: Some(memory), ..Setup::new(config) };
    let mut speculator = config.speculator_with(setup).expect("valid");
    let outcomes = target.replay(&mut speculator, trace.prompt.len()).expect("replayed");
    let written: Vec<u32> = outcomes.iter().flat_map(|outcome| outcome.emitted()).collect();
    assert_eq!(written, trace.answer, "{}", trace.id);
    (speculator.totals.clone(), outcomes)
}

/// Mean acceptance length by category, the mean of its answers, of a configuration whose stores are empty before each answer.
fn cold(config: &str) -> BTreeMap<String, f64> {
    let config: SpeculationConfig = config.parse().expect("valid");
    let mut lengths: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for trace in traces() {
        let (totals, _) = replay(&config, &Memory::new(49_152), &trace);
        let length = trace.answer.len() as f64 / totals.rounds as f64;
        lengths.entry(trace.category).or_default().push(length);
    }
    lengths.into_iter().map(|(category, all)| (category, all.iter().sum::<f64>() / all.len() as f64)).collect()
}

/// The default cascade.
const CASCADE: &str = "suffix+recycling";

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
    let cascades = [CASCADE, "sam+recycling", "suffix+ngram", "reuse(suffix)+recycling"];
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
    let config: SpeculationConfig = "drafter=suffix".parse().expect("valid");
    // All answers share one store, as all requests of an engine do; then it is saved, loaded, and all are asked for again.
    let memory = Memory::new(49_152);
    let pass = |memory: &Memory| -> f64 {
        let all = traces();
        let lengths =
            all.iter().map(|trace| trace.answer.len() as f64 / replay(&config, memory, trace).0.rounds as f64);
        lengths.sum::<f64>() / all.len() as f64
    };
    let first = pass(&memory);
    let saved = memory.suffix.borrow().save();
    let loaded = Memory::with_store(SuffixStore::load(&saved).expect("valid"));
    let second = pass(&loaded);
    println!("mean acceptance length {first:.2}, the second time {second:.2}; {} bytes saved", saved.len());
    assert!(second >= 5.0 && first < 4.0, "{first:.2}, then {second:.2}");
}

/// What drafters say of their candidates is what comes true: expected calibration error over the judged nodes, in bins of
/// claimed probability.
#[test]
fn probabilities_are_truthful() {
    for name in SINGLE.into_iter().chain([CASCADE]) {
        let config: SpeculationConfig = format!("drafter={name},num_speculative_tokens=15").parse().expect("valid");
        let mut bins = [(0u32, 0.0f64); 10];
        for trace in traces() {
            for outcome in replay(&config, &Memory::new(49_152), &trace).1 {
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

/// What learns from rejected rows too, on the model itself.
#[test]
#[ignore = "minutes with the real model"]
fn live() {
    let smollm2 = engine::smollm2(DeviceChoice::Cpu, false);
    let names = ["recycling", "jacobi", "ngram", "suffix", "suffix+recycling", "suffix+jacobi", "reuse(suffix)"];
    let mut rows: Vec<(String, BTreeMap<String, f64>)> = Vec::new();
    for name in names {
        let config: SpeculationConfig = format!("drafter={name}").parse().expect("valid");
        let mut lengths: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for trace in traces() {
            // Brings the prompt into the cache.
            engine::run(smollm2.generate(engine::request(Prompt::Tokens(trace.prompt.clone()), 1)));
            let mut tokens = trace.prompt.clone();
            let model = smollm2.target();
            model.kv.keep_prefix(&tokens, tokens.len() - 1);
            let target = WithRows(ModelTarget { executor: smollm2.executor(), model });
            let memory = Memory::new(49_152);
            let mut speculator = config.speculator_with(Setup { memory: Some(&memory), ..Setup::new(&config) });
            let speculator = speculator.as_mut().expect("valid");
            let (sampling, mut rounds) = (SamplingParams::default(), 0);
            while tokens.len() < trace.prompt.len() + trace.answer.len() {
                let left = trace.prompt.len() + trace.answer.len() - tokens.len();
                let round = speculator.round(&target, &tokens, &sampling, left);
                tokens.extend(block_on(round).expect("round").emitted());
                rounds += 1;
            }
            assert_eq!(tokens[trace.prompt.len()..], trace.answer, "{name} on {}", trace.id);
            lengths.entry(trace.category).or_default().push(trace.answer.len() as f64 / f64::from(rounds));
        }
        let mean = |all: Vec<f64>| all.iter().sum::<f64>() / all.len() as f64;
        rows.push((name.to_owned(), lengths.into_iter().map(|(category, all)| (category, mean(all))).collect()));
        print("on the model", &rows);
    }
}

/// A model whose rows come with their likeliest tokens, read off the logits on the host.
struct WithRows<'a>(ModelTarget<'a>);

impl Target for WithRows<'_> {
    fn room(&self, len: usize) -> usize {
        self.0.room(len).min(15)
    }

    fn verify<'a>(&'a self, job: Job<'a>) -> LocalFuture<'a, Result<Verified>> {
        Box::pin(async move {
            let ModelTarget { executor, model } = &self.0;
            let (nodes, size) = (job.tree.nodes().len(), model.config.vocabulary);
            let mut verified = self.0.verify(Job { needs: Needs::default(), ..job }).await?;
            let logits = executor.read(model.logits, 0, nodes * size).await?;
            for (row, logits) in verified.rows.iter_mut().zip(logits.chunks_exact(size)) {
                let top = likeliest(size, |token| f64::from(f32::from_bits(logits[token])));
                row.stats = Some(Rc::new(stats_of(&top)));
            }
            Ok(verified)
        })
    }

    fn draft<'a>(&'a self, pass: DraftPass) -> LocalFuture<'a, Result<(Vec<u32>, Vec<f32>)>> {
        self.0.draft(pass)
    }

    fn commit(&self, tokens: &[u32], tree: &TokenTree, path: &[NodeId]) {
        self.0.commit(tokens, tree, path);
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

/// Greedy answers with the end token where there is one, and the likeliest successors of the prompt's last token and of
/// each token of the answer but its last.
#[test]
#[ignore = "writes the fixture: minutes with the real model"]
fn record() {
    let mut source = engine::model("smollm2-135m-instruct.gguf");
    let header = block_on(read_header(source.as_mut())).expect("header");
    let template = ChatTemplate::from_metadata(&header.metadata).expect("template").expect("a chat model");
    let smollm2 = engine::smollm2(DeviceChoice::Cpu, false);
    let tokenizer = smollm2.tokenizer();
    let special = |token: Option<u32>| token.map_or("", |token| tokenizer.token_text(token));
    let suite: Value = serde_json::from_str(include_str!("prompts/dev.json")).expect("valid");
    let mut traces = Vec::new();
    for item in suite["prompts"].as_array().expect("prompts") {
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
        println!("{id}: {} + {}", prompt.len(), answer.len());
        traces.push(json!({"id": id, "category": category, "prompt": prompt, "answer": answer, "top": top}));
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
        let job = Job { tokens: &all[..at], tree: &tree, inner: None, sampling: &sampling, needs };
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
