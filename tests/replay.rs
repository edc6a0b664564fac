//! Drafters on real text: SmolLM2's own answers to `prompts/dev.json` are replayed round by round, without the model.
//!
//! `tests/fixtures/traces.json` holds them; `cargo test --release --test replay -- --ignored record` writes it anew.

#[path = "support/engine.rs"]
mod engine;

use foredraft::engine::DeviceChoice;
use foredraft::generation::Prompt;
use foredraft::plan::RowStats;
use foredraft::sampling::SamplingParams;
use foredraft::speculate::SpeculationConfig;
use foredraft::speculate::cost::CostModel;
use foredraft::speculate::drafters::DrafterId;
use foredraft::speculate::memory::Memory;
use foredraft::speculate::methods::Setup;
use foredraft::speculate::outcome::Needs;
use foredraft::speculate::outcome::Totals;
use foredraft::speculate::simulate::SimulatedTarget;
use foredraft::speculate::target::{Job, ModelTarget, Target};
use foredraft::speculate::tree::TokenTree;
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
fn replay(config: &SpeculationConfig, memory: &Memory, trace: &Trace) -> Totals {
    let text = [&trace.prompt[..], &trace.answer].concat();
    let mut target = SimulatedTarget::new(text, CostModel::of_curve([1.0; 5], &[]), 0.0);
    target.stats = vec![None; trace.prompt.len() - 1];
    target.stats.extend(trace.top.iter().map(|top| {
        let top = top.iter().map(|&token| (token, 0.0)).collect();
        Some(Rc::new(RowStats { entropy: 0.0, second_moment: 0.0, sample_logp: 0.0, top, drawn: Vec::new() }))
    }));
    let setup = Setup { memory: Some(memory), ..Setup::new(config) };
    let mut speculator = config.speculator(setup).expect("valid");
    let outcomes = target.replay(&mut speculator, trace.prompt.len()).expect("replayed");
    let written: Vec<u32> = outcomes.iter().flat_map(|outcome| outcome.emitted()).collect();
    assert_eq!(written, trace.answer, "{}", trace.id);
    speculator.totals.clone()
}

/// Mean acceptance length by category, the mean of its answers, of a configuration whose stores are empty before each answer.
fn cold(config: &str) -> BTreeMap<String, f64> {
    let config: SpeculationConfig = config.parse().expect("valid");
    let mut lengths: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for trace in traces() {
        let totals = replay(&config, &Memory::new(49_152), &trace);
        let length = trace.answer.len() as f64 / totals.rounds as f64;
        lengths.entry(trace.category).or_default().push(length);
    }
    lengths.into_iter().map(|(category, all)| (category, all.iter().sum::<f64>() / all.len() as f64)).collect()
}

#[test]
fn table() {
    let drafters = [
        "ngram",
        "suffix",
        "sam",
        "sam,sam_min_match=5",
        "hierarchy",
        "recycling",
        "reuse(suffix)",
        "suffix+recycling",
        "sam+recycling",
        "sam+suffix,sam_min_match=5",
        "reuse(suffix)+recycling",
        "suffix,suffix_factor=2",
        "suffix,suffix_factor=4",
        "suffix,suffix_offset=4",
        "suffix,suffix_min_prob=0.01",
    ];
    for count in ["", ",num_speculative_tokens=15"] {
        for (row, drafter) in drafters.iter().enumerate() {
            let lengths = cold(&format!("drafter={drafter}{count}"));
            if row == 0 {
                println!("{:48} {}", "", lengths.keys().map(|c| format!("{c:>14}")).collect::<String>());
            }
            println!(
                "{:48} {}",
                format!("{drafter}{count}"),
                lengths.values().map(|l| format!("{l:14.2}")).collect::<String>()
            );
        }
    }
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
            let mut order: Vec<u32> = (0..p.len() as u32).collect();
            order.sort_by(|a, b| p[*b as usize].total_cmp(&p[*a as usize]).then(a.cmp(b)));
            order.truncate(TOP);
            rows.push(order);
        }
    }
    rows
}
