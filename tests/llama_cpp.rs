//! What the models say against what llama.cpp says of the same prompts (`tests/fixtures/greedy.json`, made by `make.py`).
//!
//! llama.cpp rounds activations to 8 bits, so only tokens that it chose by a clear margin are compared, each after
//! llama.cpp's own tokens before it.

#[path = "support/engine.rs"]
mod engine;

use engine::{load, model, request, run};
use foredraft::engine::{DeviceChoice, LoadOptions};
use foredraft::generation::Prompt;
use foredraft::plan::Arithmetic;
use serde_json::Value;

/// Logits apart: above what 8-bit activations were seen to move.
const CLEAR: f64 = 0.6;

fn check(file: &str, key: &str) {
    let mut options = LoadOptions::new(model(file));
    options.device = DeviceChoice::Cpu;
    options.arithmetic = Some(Arithmetic::F32);
    options.context = Some(256);
    let engine = load(options);
    let fixture: Value = serde_json::from_str(include_str!("fixtures/greedy.json")).expect("valid");
    let numbers = |value: &Value| -> Vec<u32> {
        value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("id") as u32).collect()
    };
    let mut compared = 0;
    for sample in fixture[key].as_array().expect("samples") {
        let (prompt, ids) = (numbers(&sample["prompt_ids"]), numbers(&sample["ids"]));
        for (at, margin) in sample["margins"].as_array().expect("margins").iter().enumerate() {
            if margin.as_f64().expect("a number") < CLEAR {
                continue;
            }
            let before = [&prompt[..], &ids[..at]].concat();
            let summary = run(engine.generate(request(Prompt::Tokens(before), 1)));
            assert_eq!(summary.tokens, ids[at..=at], "{file}, {}, token {at}", sample["prompt"]);
            compared += 1;
        }
    }
    assert!(compared > 25, "only {compared} tokens were clear");
}

#[test]
fn smollm2_agrees_where_the_choice_is_clear() {
    check("smollm2-135m-instruct.gguf", "smollm2");
}

#[test]
fn gemma3_agrees_where_the_choice_is_clear() {
    check("gemma-3-270m.gguf", "gemma3");
}
