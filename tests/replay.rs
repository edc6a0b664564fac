//! Drafters on real text: SmolLM2's own answers to `prompts/dev.json` are replayed round by round, without the model.
//!
//! `tests/fixtures/traces.json` holds them; `cargo test --release --test replay -- --ignored record` writes it anew.

#[path = "support/engine.rs"]
mod engine;

use foredraft::engine::DeviceChoice;
use foredraft::generation::Prompt;
use foredraft::sampling::SamplingParams;
use foredraft::speculate::SpeculationConfig;
use foredraft::speculate::drafters::DrafterId;
use foredraft::speculate::outcome::Needs;
use foredraft::speculate::target::{Job, ModelTarget, Target};
use foredraft::speculate::tree::TokenTree;
use foredraft::text::template::ChatTemplate;
use foredraft::weights::gguf::read_header;
use futures_lite::future::block_on;
use serde_json::{Value, json};

/// Successors recorded of each row.
const TOP: usize = 8;

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
