//! Answers by a JSON schema: valid every time, the same tokens with speculation and without, and schemas that ask for too much
//! are refused in time.

#[path = "support/engine.rs"]
mod engine;
#[path = "support/gguf.rs"]
#[allow(dead_code, reason = "only a part is used here")]
mod gguf;

use engine::{DEVICES, bytes, load, request, run, smollm2};
use foredraft::engine::{DeviceChoice, Engine, LoadOptions};
use foredraft::error::Error;
use foredraft::generation::{Prompt, Request};
use foredraft::sampling::SamplingParams;
use foredraft::summary::{Event, FinishReason, Summary, TokenPiece};
use futures_lite::future::block_on;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const DRAFTS: [&str; 3] = ["auto", "drafter=ngram+grammar,length=fixed", "drafter=model,length=fixed,tree=static"];

struct Case {
    prompt: String,
    schema: Value,
}

/// Twenty schemas whose texts are all short.
fn cases() -> Vec<Case> {
    let list: Value = serde_json::from_str(include_str!("prompts/schemas.json")).expect("JSON");
    let case = |case: &Value| Case {
        prompt: case["prompt"].as_str().expect("a prompt").to_owned(),
        schema: case["schema"].clone(),
    };
    list.as_array().expect("a list").iter().map(case).collect()
}

fn check(schema: &Value, summary: &Summary) {
    let text = &summary.text;
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?} for {schema}"));
    let validator = jsonschema::validator_for(schema).expect("a schema");
    assert!(validator.is_valid(&value), "{text} is not valid by {schema}");
    assert_eq!(summary.finish_reason, FinishReason::Stop, "{text}");
}

fn ask(prompt: Prompt, schema: &Value, sampling: &SamplingParams, speculation: &str) -> Request {
    let mut asked = request(prompt, 120);
    asked.schema = Some(schema.to_string());
    asked.sampling = sampling.clone();
    asked.speculation = Some(speculation.parse().expect("valid"));
    asked
}

fn samplings() -> [SamplingParams; 2] {
    let warm = SamplingParams { temperature: 0.9, top_p: 0.95, repeat_penalty: 1.05, seed: 5, ..Default::default() };
    [SamplingParams::default(), warm]
}

/// Twenty of twenty, by a real model on one device.
fn twenty_of_twenty(device: DeviceChoice, cases: &[Case], drafts: &[&str]) {
    let engine = smollm2(device, true);
    let (mut rounds, mut tokens, mut accepted, mut drafted, mut redrawn) = (0, 0, 0, 0, 0);
    for sampling in samplings() {
        for Case { prompt, schema } in cases {
            let messages = Prompt::Messages(json!([{ "role": "user", "content": prompt }]));
            let plain = run(engine.generate(ask(messages.clone(), schema, &sampling, "off")));
            check(schema, &plain);
            redrawn += plain.redrawn_tokens;
            for speculation in drafts {
                let same = run(engine.generate(ask(messages.clone(), schema, &sampling, speculation)));
                assert_eq!(same.tokens, plain.tokens, "{speculation}: {} for {}, {schema}", same.text, plain.text);
                check(schema, &same);
                let found = &same.speculation;
                (rounds, tokens) = (rounds + found.rounds, tokens + same.tokens.len() as u64);
                (accepted, drafted) = (accepted + found.accepted, drafted + found.drafted);
            }
        }
    }
    println!(
        "{device:?}: {tokens} tokens in {rounds} rounds, {accepted} of {drafted} drafts accepted, {redrawn} redrawn"
    );
    assert!(accepted > 0 && accepted < drafted && redrawn > 0, "{accepted} of {drafted} accepted, {redrawn} redrawn");
}

#[test]
fn twenty_of_twenty_on_the_cpu() {
    let cases = cases();
    assert_eq!(cases.len(), 20);
    twenty_of_twenty(DeviceChoice::Cpu, &cases, &DRAFTS);
}

#[test]
fn the_gpu_keeps_to_schemas_too() {
    twenty_of_twenty(DeviceChoice::Gpu, &cases()[4..8], &DRAFTS[..2]);
}

fn tiny(device: DeviceChoice) -> Engine {
    let mut options = LoadOptions::new(bytes("tiny.gguf", gguf::tiny_llama()));
    options.device = device;
    load(options)
}

/// A model of noise wants nothing of what the schema wants.
#[test]
fn noise_keeps_to_schemas_on_every_device() {
    for device in DEVICES {
        let engine = tiny(device);
        for Case { schema, .. } in cases() {
            // Of what is long the context of the tiny model holds too little.
            if schema["properties"]["animals"].is_object() {
                continue;
            }
            for seed in 0..3 {
                let sampling = SamplingParams { temperature: seed as f32 * 0.7, seed, ..SamplingParams::default() };
                let go =
                    |speculation| run(engine.generate(ask(Prompt::Text("a".into()), &schema, &sampling, speculation)));
                let (plain, drafted) = (go("off"), go("auto"));
                check(&schema, &plain);
                assert_eq!(plain.tokens, drafted.tokens, "{schema}");
            }
        }
    }
}

#[test]
fn what_leaves_no_choice_is_drafted() {
    let engine = smollm2(DeviceChoice::Cpu, false);
    let name = "a_name_that_no_model_would_think_of";
    let schema = json!({
        "type": "object", "properties": { name: { "const": "zq-17-zq-18" } }, "required": [name], "additionalProperties": false,
    });
    let messages = Prompt::Messages(json!([{ "role": "user", "content": "Hello" }]));
    let fixed = "drafter=grammar,length=fixed";
    let summary = run(engine.generate(ask(messages, &schema, &SamplingParams::default(), fixed)));
    check(&schema, &summary);
    let (rounds, tokens) = (summary.speculation.rounds, summary.tokens.len() as u64);
    assert!(2 * rounds <= tokens, "{rounds} rounds for {tokens} tokens");
    assert_eq!(summary.speculation.by_drafter["grammar"].accepted, summary.speculation.accepted);
}

#[test]
fn max_tokens_cuts_and_says_so() {
    let schema = json!({ "type": "string", "minLength": 10 });
    let mut asked = ask(Prompt::Text("a".into()), &schema, &SamplingParams::default(), "auto");
    asked.max_tokens = Some(3);
    let summary = run(tiny(DeviceChoice::Cpu).generate(asked));
    assert_eq!((summary.finish_reason, summary.tokens.len()), (FinishReason::Length, 3));
    assert!(summary.text.starts_with('"'));
}

#[test]
fn logprobs_are_those_of_the_tokens_that_are_written() {
    let engine = smollm2(DeviceChoice::Cpu, false);
    let schema = json!({ "type": "object", "properties": { "a": { "enum": ["x", "yes"] } }, "required": ["a"] });
    let pieces = |speculation: &str| -> Vec<TokenPiece> {
        let messages = Prompt::Messages(json!([{ "role": "user", "content": "Hello" }]));
        let mut asked = ask(messages, &schema, &SamplingParams::default(), speculation);
        (asked.logprobs, asked.max_tokens) = (Some(1), Some(8));
        let mut generation = engine.generate(asked);
        let mut pieces = Vec::new();
        loop {
            match block_on(generation.next()).expect("an event").expect("no error") {
                Event::Chunk(chunk) => pieces.extend(chunk.tokens),
                Event::Done(_) => return pieces,
            }
        }
    };
    let (plain, drafted) = (pieces("off"), pieces("drafter=grammar,length=fixed"));
    assert_eq!(plain.len(), drafted.len());
    let mut unlikely = 0;
    for (plain, drafted) in plain.iter().zip(&drafted) {
        assert_eq!((plain.id, &plain.logprob), (drafted.id, &drafted.logprob));
        let logprob = plain.logprob.as_ref().expect("it was asked for");
        assert_eq!(logprob.chosen.id, plain.id);
        assert!(logprob.chosen.logprob <= logprob.top[0].logprob + 1e-4);
        unlikely += usize::from(logprob.top[0].id != plain.id);
    }
    assert!(unlikely > 0, "the model would have written something else");
}

/// Whatever a schema asks for, an answer or a typed error comes in bounded time, and the engine goes on.
#[test]
fn hostile_schemas_are_refused_in_time() {
    let engine = tiny(DeviceChoice::Cpu);
    let deep = (0..200).fold(json!({ "type": "string" }), |inner, _| json!({ "type": "array", "items": inner }));
    let nested =
        (0..25).fold(json!({ "type": "string" }), |inner, _| json!({ "type": "array", "items": inner, "minItems": 1 }));
    let many: Vec<String> = (0..40_000).map(|n| format!("value {n}")).collect();
    let some: Vec<String> = (0..15_000).map(|n| format!("value {n}")).collect();
    let pattern = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    let forms = |count: usize| -> Vec<Value> {
        (0..count).map(|n| json!({ "properties": { format!("p{n}"): pattern("^(a|b|ab)*c$") } })).collect()
    };
    let both =
        |n: usize| json!({ "anyOf": [pattern(&format!("^(.*a.{{{n}}})$")), pattern(&format!("^(.*b.{{{n}}})$"))] });
    let crossed: Vec<Value> = (3..15).map(both).collect();
    let strings = |count: usize| -> Vec<String> { (0..count).map(|n| format!("p{n}")).collect() };
    let properties: serde_json::Map<_, _> = strings(3000).into_iter().map(|name| (name, json!({}))).collect();
    let named = json!({ "type": "object", "properties": properties });
    let others = strings(3000);
    let alternatives: Vec<Value> = strings(4000).into_iter().map(|text| json!({ "const": text })).collect();
    let endless = json!({
        "$ref": "#/$defs/n",
        "$defs": { "n": {
            "type": "object", "properties": { "x": { "$ref": "#/$defs/n" } }, "required": ["x"], "additionalProperties": false,
        } },
    });
    let refused = [
        (json!([1]), "expected an object"),
        (json!(true), "expected an object"),
        (json!({ "type": "strong" }), "strong"),
        (json!({ "enum": [] }), "empty"),
        (json!({ "type": "integer", "minimum": 5, "maximum": 4 }), "greater than maximum"),
        (json!({ "$ref": "https://example.com/schema.json" }), "example.com"),
        (
            json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } } }),
            "no text",
        ),
        (json!({ "type": "object", "properties": { "a": { "not": { "type": "string" } } } }), "not"),
        (json!({ "enum": many }), "bytes"),
        (deep, "recursion"),
        (json!({ "allOf": [named, { "type": "object", "additionalProperties": { "enum": others } }] }), "merging"),
        (json!({ "oneOf": alternatives }), "merging"),
        (endless, "work"),
    ];
    let hard = [
        nested,
        json!({ "enum": some }),
        pattern("^((a{1,1000}){1,1000}){1,1000}$"),
        pattern("^(.*a.{500}b|.*c.{500}d)$"),
        json!({ "type": "string", "minLength": 1_000_000_000, "maxLength": 2_000_000_000 }),
        json!({ "type": "array", "items": { "type": "boolean" }, "minItems": 1_000_000_000 }),
        json!({ "type": "integer", "multipleOf": 999_999_937, "minimum": 5 }),
        json!({ "allOf": forms(400), "type": "object" }),
        json!({ "allOf": crossed }),
    ];
    let mut failed = 0;
    let all = refused.into_iter().map(|(schema, word)| (schema, Some(word))).chain(hard.map(|schema| (schema, None)));
    for (schema, word) in all {
        let start = Instant::now();
        let answered = |speculation| {
            let asked = ask(Prompt::Text("a".into()), &schema, &SamplingParams::default(), speculation);
            block_on(engine.generate(asked).finish())
        };
        let answer = answered("auto");
        let (text, took) = (schema.to_string().chars().take(80).collect::<String>(), start.elapsed());
        match (&answer, answered("off")) {
            (Ok(drafted), Ok(plain)) => assert_eq!(drafted.tokens, plain.tokens, "{text}"),
            (Err(drafted), Err(plain)) => assert_eq!(drafted.to_string(), plain.to_string(), "{text}"),
            (drafted, plain) => panic!("{text}: {drafted:?} with drafts, {plain:?} without"),
        }
        match (&answer, word) {
            (Err(error), word) => {
                println!("{text}: {error} ({took:?})");
                assert!(matches!(error, Error::Schema { .. }), "{text}: {error}");
                assert!(error.to_string().contains(word.unwrap_or_default()), "{text}: {error}");
                assert!(error.to_string().len() < 1000, "{error}");
                failed += 1;
            }
            (Ok(summary), None) => println!("{text}: {:?} ({took:?})", summary.finish_reason),
            (Ok(summary), Some(_)) => panic!("{text} was answered: {}", summary.text),
        }
        assert!(took < Duration::from_secs(5), "{text} took {took:?}");
    }
    assert!(failed > 10, "of the hard ones too some are beyond the budgets");
    let schema = json!({ "type": "boolean" });
    let sampling = SamplingParams::default();
    check(&schema, &run(engine.generate(ask(Prompt::Text("a".into()), &schema, &sampling, "auto"))));
}

#[test]
fn rules_that_do_not_write_the_targets_samples_are_refused() {
    let schema = json!({ "type": "boolean" });
    let warm = &samplings()[1];
    let asked = ask(Prompt::Text("a".into()), &schema, warm, "drafter=ngram,accept=typical");
    let error = block_on(tiny(DeviceChoice::Cpu).generate(asked).finish()).expect_err("refused");
    assert!(error.code() == "bad_option" && error.to_string().contains("accept=match"), "{error}");
}
