//! Requests as a caller sees them: events, stops, aborts, prefix reuse, and one typed error for every bad input.

#[path = "support/engine.rs"]
mod engine;
#[path = "support/gguf.rs"]
mod gguf;

use engine::{bytes, load, request, run};
use foredraft::bench;
use foredraft::engine::{DeviceChoice, Engine, LoadOptions, Progress};
use foredraft::error::Error;
use foredraft::generation::{ContextOverflow, Prompt, Request};
use foredraft::model::MemoryPlan;
use foredraft::probe::{Probe, ProbeOptions, SpeedClass, probe};
use foredraft::sampling::SamplingParams;
use foredraft::summary::{Event, FinishReason, Summary};
use foredraft::weights::format::Format;
use foredraft::weights::gguf::read_header;
use foredraft::weights::metadata::Value;
use futures_lite::future::block_on;

fn options(file: Vec<u8>) -> LoadOptions {
    let mut options = LoadOptions::new(bytes("tiny.gguf", file));
    options.device = DeviceChoice::Cpu;
    options
}

fn tiny() -> Engine {
    load(options(gguf::tiny_llama()))
}

fn text(text: &str) -> Prompt {
    Prompt::Text(text.to_owned())
}

fn load_error(options: LoadOptions) -> Error {
    match block_on(Engine::load(options, &mut |_| {})) {
        Ok(_) => panic!("this must not load"),
        Err(error) => error,
    }
}

fn generate_error(engine: &Engine, request: Request) -> Error {
    block_on(engine.generate(request).finish()).expect_err("this must fail")
}

/// The tiny model with one metadata value changed, or taken out.
fn with(key: &'static str, value: Option<Value>) -> Vec<u8> {
    let mut metadata = gguf::tiny_llama_metadata();
    metadata.retain(|(name, _)| *name != key);
    metadata.extend(value.map(|value| (key, value)));
    gguf::write(metadata, &gguf::tiny_llama_tensors())
}

#[test]
fn chunks_add_up_to_the_summary() {
    let engine = tiny();
    let mut generation = engine.generate(request(text("hello"), 20));
    let (mut joined, mut ids, mut pieces) = (String::new(), Vec::new(), String::new());
    let summary = loop {
        match block_on(generation.next()).expect("an event").expect("no error") {
            Event::Chunk(chunk) => {
                joined.push_str(&chunk.text);
                ids.extend(chunk.tokens.iter().map(|token| token.id));
                pieces.extend(chunk.tokens.iter().map(|token| token.text.as_str()));
            }
            Event::Done(summary) => break summary,
        }
    };
    assert!(block_on(generation.next()).is_none(), "nothing comes after the summary");
    assert_eq!((joined, ids), (summary.text.clone(), summary.tokens.clone()));
    assert!(summary.text.starts_with(&pieces), "only the flush at the end has no token");
    assert_eq!(summary.finish_reason, FinishReason::Length);
    assert_eq!(summary.usage.completion_tokens, 20);
}

#[test]
fn a_follow_up_prefills_only_what_is_new() {
    let engine = tiny();
    let session = engine.session();
    let first = run(session.generate(request(text("one two three"), 5)));
    assert_eq!(first.usage.prompt_tokens_details.cached_tokens, 0);
    let longer = format!("one two three{}", "!");
    let second = run(session.generate(request(text(&longer), 5)));
    assert_eq!(second.usage.prompt_tokens_details.cached_tokens, first.usage.prompt_tokens);
    let fresh = run(tiny().generate(request(text(&longer), 5)));
    assert_eq!(second.tokens, fresh.tokens, "a cached prefix changes nothing");
}

#[test]
fn a_stop_string_ends_the_answer_and_is_not_part_of_it() {
    let engine = tiny();
    let whole = run(engine.generate(request(text("hello"), 20)));
    let characters: Vec<char> = whole.text.chars().collect();
    let stop: String = characters[6..9].iter().collect();
    let mut stopped = request(text("hello"), 20);
    stopped.stop = vec![stop.clone()];
    let summary = run(engine.generate(stopped));
    assert_eq!(summary.finish_reason, FinishReason::Stop);
    assert_eq!(summary.text, whole.text[..whole.text.find(&stop).expect("it is there")]);
}

#[test]
fn an_abort_ends_with_what_there_is() {
    let engine = tiny();
    let mut generation = engine.generate(request(text("hello"), 100));
    let cancel = generation.cancel_handle();
    assert!(matches!(block_on(generation.next()), Some(Ok(Event::Chunk(_)))));
    cancel.cancel();
    let Some(Ok(Event::Done(summary))) = block_on(generation.next()) else { panic!("expected the summary") };
    assert_eq!(summary.finish_reason, FinishReason::Abort);
    assert!(summary.usage.completion_tokens >= 1 && summary.usage.completion_tokens < 100);
    assert_eq!(run(engine.generate(request(text("hello"), 3))).usage.completion_tokens, 3, "the engine goes on");
}

#[test]
fn an_abort_during_prefill_ends_with_nothing() {
    let engine = tiny();
    let mut generation = engine.generate(request(text(&"a".repeat(100)), 10));
    generation.cancel_handle().cancel();
    let Some(Ok(Event::Done(summary))) = block_on(generation.next()) else { panic!("expected the summary") };
    assert_eq!((summary.finish_reason, summary.tokens.len()), (FinishReason::Abort, 0));
    let fresh = run(tiny().generate(request(text("hello"), 5)));
    assert_eq!(run(engine.generate(request(text("hello"), 5))).tokens, fresh.tokens, "the engine goes on");
}

#[test]
fn a_cancelled_bench_ends_with_the_run_it_is_at_and_forgets_nothing() {
    let engine = tiny();
    run(engine.generate(request(text("hello"), 5)));
    let learned = engine.save_suffix_store();
    let suite = r#"{"prompts":[{"id":"a","category":"a","messages":[{"role":"user","content":"hello"}]}]}"#;
    let suite = serde_json::from_str(suite).expect("a suite");
    let options = bench::Options::default();
    let mut runs = 0;
    let mut cancel_the_second = |_: &bench::Progress<'_>| {
        runs += 1;
        if runs == 2 {
            options.cancel.cancel();
        }
    };
    let found = block_on(bench::run(&engine, &suite, &options, &mut cancel_the_second));
    assert_eq!(found.expect_err("it was cancelled").code(), "aborted");
    assert_eq!(runs, 2, "of four");
    assert!(engine.save_suffix_store() == learned);
}

/// Where it pays a plain step is submitted before the token of the one before is known. Whatever ends an answer, nothing of
/// that shows, and the prefix that is left in the cache is right.
#[test]
fn steps_ahead_change_nothing() {
    let gpu = || load(LoadOptions { device: DeviceChoice::Gpu, ..options(gguf::tiny_llama()) });
    let (engine, fresh) = (gpu(), gpu());
    // On a GPU in software it may not pay.
    let measured = engine.cost_model();
    let it_pays = || engine.set_cost_model(measured.clone().saving(0.5 * measured.plain_ms()));
    let warm = SamplingParams { temperature: 0.9, seed: 5, ..SamplingParams::default() };
    let penalised = SamplingParams { repeat_penalty: 1.3, frequency_penalty: 0.5, repeat_last_n: 16, ..warm.clone() };
    for sampling in [SamplingParams::default(), warm, penalised] {
        let ask = |prompt: Prompt, max_tokens: usize, speculation: &str| Request {
            sampling: sampling.clone(),
            speculation: Some(speculation.parse().expect("valid")),
            ..request(prompt, max_tokens)
        };
        let counts = |summary: &Summary| {
            let counted = &summary.speculation;
            (counted.submits - counted.rounds, counted.maps - counted.rounds)
        };
        let plain = |max_tokens: usize| {
            it_pays();
            ask(text("hello"), max_tokens, "off")
        };
        let waits = run(engine.generate(ask(text("hello"), 60, "drafter=ngram,length=fixed")));
        let ahead = run(engine.generate(plain(60)));
        assert_eq!((&ahead.tokens, counts(&ahead)), (&waits.tokens, (0, 0)), "by length, none in vain");
        let to_the_end = run(engine.generate(plain(1000)));
        assert_eq!(
            (&to_the_end.tokens[..60], counts(&to_the_end)),
            (&waits.tokens[..], (0, 0)),
            "none beyond the context"
        );
        let likely = run(engine.generate(Request { logprobs: Some(2), ..plain(60) }));
        assert_eq!(likely.tokens, waits.tokens, "statistics come with the step");

        let characters: Vec<char> = waits.text.chars().collect();
        // Early: later on a step waits, to see whether it still pays.
        let stop: String = characters[6..10].iter().collect();
        let stopped = run(engine.generate(Request { stop: vec![stop.clone()], ..plain(60) }));
        let until = waits.text.find(&stop).expect("it is there");
        assert_eq!((stopped.text.as_str(), counts(&stopped)), (&waits.text[..until], (1, 1)), "one step in vain");

        // What an answer left behind is the beginning of the next prompt, of which all but its own end is cached.
        let follow_up = |prompt: &[u32], answer: &[u32], what: &str| {
            let longer = Prompt::Tokens([prompt, answer, &[3, 4]].concat());
            let next = run(engine.generate(ask(longer.clone(), 20, "off")));
            let cached = prompt.len() + answer.len() - 1;
            assert!(next.usage.prompt_tokens_details.cached_tokens >= cached, "{what}: {:?}", next.usage);
            fresh.target().kv.rollback(0);
            assert_eq!(next.tokens, run(fresh.generate(ask(longer, 20, "off"))).tokens, "{what}, {sampling:?}");
        };
        let prompt = engine.prompt_tokens(&text("hello")).expect("tokens");
        run(engine.generate(Request { stop: vec![stop], ..plain(60) }));
        follow_up(&prompt, &stopped.tokens, "after a stop string");

        let mut generation = engine.generate(plain(60));
        let cancel = generation.cancel_handle();
        for _ in 0..3 {
            block_on(generation.next()).expect("an event").expect("no error");
        }
        cancel.cancel();
        let aborted = run(generation);
        assert_eq!((aborted.finish_reason, counts(&aborted)), (FinishReason::Abort, (1, 1)));
        follow_up(&prompt, &aborted.tokens, "after an abort");

        let mut generation = engine.generate(plain(60));
        block_on(generation.next()).expect("an event").expect("no error");
        drop(generation);
        follow_up(&prompt, &[], "after a stream that was dropped");
        assert_eq!(run(engine.generate(plain(60))).tokens, waits.tokens, "the engine goes on");
    }
}

#[test]
fn a_prompt_beyond_the_drafts_context_is_answered_without_it() {
    for device in [DeviceChoice::Cpu, DeviceChoice::Gpu] {
        let mut options = options(gguf::tiny_llama());
        options.draft_model = Some(bytes("draft.gguf", gguf::tiny_llama_with_context(64)));
        options.device = device;
        // A fixed length gives no reasons of its own.
        options.speculation = "length=fixed".parse().expect("valid");
        let engine = load(options);
        let long = run(engine.generate(request(text(&"abcd".repeat(25)), 10)));
        assert!(long.speculation.reason.contains("64 tokens"), "{}", long.speculation.reason);
        let plain = run(tiny().generate(request(text(&"abcd".repeat(25)), 10)));
        assert!(device == DeviceChoice::Gpu || long.tokens == plain.tokens);
        let mut short = request(text("hello"), 100);
        // Left to itself, a policy would find that a draft as dear as the target does not pay.
        short.speculation = Some("drafter=model,length=fixed".parse().expect("valid"));
        let summary = run(engine.generate(short));
        assert_eq!(summary.usage.completion_tokens, 100, "goes on where the draft's context ends");
        assert!(summary.speculation.accepted > 20, "a model agrees with itself");
    }
}

#[test]
fn one_request_at_a_time() {
    let engine = tiny();
    let mut first = engine.generate(request(text("hello"), 50));
    block_on(first.next()).expect("an event").expect("no error");
    assert_eq!(generate_error(&engine, request(text("hello"), 5)).code(), "busy");
    drop(first);
    run(engine.generate(request(text("hello"), 5)));
}

#[test]
fn a_damaged_file_is_named() {
    let good = gguf::tiny_llama();
    let code = |file: Vec<u8>| load_error(options(file)).code();
    assert_eq!(code(b"<!doctype html>".to_vec()), "not_gguf");
    assert_eq!(code(good[..good.len() - 4000].to_vec()), "truncated");
    assert_eq!(code(good[..100].to_vec()), "truncated");
    let mut absurd = good.clone();
    absurd[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(code(absurd), "bad_header");
}

#[test]
fn a_model_that_cannot_run_is_refused_by_name() {
    let unknown = load_error(options(with("general.architecture", Some(Value::String("rwkv7".to_owned())))));
    assert!(matches!(&unknown, Error::UnsupportedArchitecture { found, .. } if found == "rwkv7"), "{unknown}");
    let missing = load_error(options(with("llama.embedding_length", None)));
    assert!(missing.to_string().contains("llama.embedding_length"), "{missing}");
    let few = load_error(options(with("llama.vocab_size", Some(Value::Uint(100)))));
    assert!(few.to_string().contains("at least its 259 tokens"), "{few}");
    let heads = load_error(options(with("llama.attention.head_count_kv", Some(Value::Uint(3)))));
    assert!(heads.to_string().contains("llama.attention.head_count_kv is 3"), "{heads}");

    let mut tensors = gguf::tiny_llama_tensors();
    let lost = tensors.pop().expect("tensors").name;
    let error = load_error(options(gguf::write(gguf::tiny_llama_metadata(), &tensors)));
    assert!(matches!(&error, Error::MissingTensor { tensor, .. } if *tensor == lost), "{error}");

    let mut tensors = gguf::tiny_llama_tensors();
    tensors.push(gguf::Tensor::f32("blk.0.attn_q.bias", &[64], &[0.0; 64]));
    let error = load_error(options(gguf::write(gguf::tiny_llama_metadata(), &tensors)));
    assert!(error.to_string().contains("blk.0.attn_q.bias"), "an unused tensor would change the model: {error}");

    let mut tensors = gguf::tiny_llama_tensors();
    let wrong = tensors.iter_mut().find(|tensor| tensor.name == "blk.1.attn_norm.weight").expect("there");
    *wrong = gguf::Tensor::new("blk.1.attn_norm.weight", &[32], Format::F32, vec![0; 128]);
    let error = load_error(options(gguf::write(gguf::tiny_llama_metadata(), &tensors)));
    assert!(matches!(&error, Error::TensorShape { tensor, .. } if tensor == "blk.1.attn_norm.weight"), "{error}");
}

#[test]
fn a_draft_of_another_vocabulary_is_refused() {
    let mut options = options(gguf::tiny_llama());
    let Some(Value::Strings(mut tokens)) = gguf::tiny_llama_metadata()
        .into_iter()
        .find(|(key, _)| *key == "tokenizer.ggml.tokens")
        .map(|(_, value)| value)
    else {
        panic!("tokens")
    };
    tokens.swap(40, 41);
    options.draft_model = Some(bytes("draft.gguf", with("tokenizer.ggml.tokens", Some(Value::Strings(tokens)))));
    let error = load_error(options);
    assert_eq!(error.code(), "vocabulary_mismatch", "{error}");

    // Same tokens, more rows: ids beyond the target's would have no meaning there.
    let mut metadata = gguf::tiny_llama_metadata();
    metadata.retain(|(key, _)| *key != "llama.vocab_size");
    metadata.push(("llama.vocab_size", Value::Uint(288)));
    let mut tensors = gguf::tiny_llama_tensors();
    tensors[0] = gguf::Tensor::f32("token_embd.weight", &[288, 64], &[0.5; 288 * 64]);
    let mut options = self::options(gguf::tiny_llama());
    options.draft_model = Some(bytes("draft.gguf", gguf::write(metadata, &tensors)));
    let error = load_error(options);
    assert_eq!(error.code(), "vocabulary_mismatch", "{error}");
}

#[test]
fn options_are_checked_with_their_names() {
    let engine = tiny();
    let error = generate_error(&engine, request(text(""), 5));
    assert_eq!(error.code(), "empty_prompt");
    let error = generate_error(&engine, request(text(&"a".repeat(300)), 5));
    assert!(matches!(error, Error::PromptTooLong { prompt_tokens: 300, context_tokens: 128 }), "{error}");
    let error = generate_error(&engine, request(Prompt::Tokens(vec![1, 9999]), 5));
    assert!(error.to_string().contains("9999"), "{error}");
    let error = generate_error(&engine, request(text("a"), 0));
    assert!(error.to_string().contains("max_tokens"), "{error}");
    let bad = [
        ("temperature", SamplingParams { temperature: -1.0, ..SamplingParams::default() }),
        ("temperature", SamplingParams { temperature: f32::NAN, ..SamplingParams::default() }),
        ("top_p", SamplingParams { top_p: 0.0, ..SamplingParams::default() }),
        ("min_p", SamplingParams { min_p: 1.5, ..SamplingParams::default() }),
        ("repeat_penalty", SamplingParams { repeat_penalty: 0.0, ..SamplingParams::default() }),
        ("repeat_last_n", SamplingParams { repeat_last_n: 257, ..SamplingParams::default() }),
        ("logit_bias", SamplingParams { logit_bias: vec![(300, 1.0)], ..SamplingParams::default() }),
    ];
    for (name, sampling) in bad {
        let mut request = request(text("a"), 5);
        request.sampling = sampling;
        let error = generate_error(&engine, request);
        assert_eq!(error.code(), "bad_option");
        assert!(error.to_string().contains(name), "{error}");
    }
    let mut options = options(gguf::tiny_llama());
    options.context = Some(1000);
    let error = load_error(options);
    assert!(error.to_string().contains("context is 1000") && error.to_string().contains("128"), "{error}");
    let mut options = self::options(gguf::tiny_llama());
    options.speculation = "drafter=model".parse().expect("valid");
    let error = load_error(options);
    assert!(error.to_string().contains("draft model"), "{error}");
}

#[test]
fn a_lost_device_ends_the_stream_and_a_new_load_works() {
    let mut options = options(gguf::tiny_llama());
    options.device = DeviceChoice::Gpu;
    let engine = load(options);
    let mut generation = engine.generate(request(text("hello"), 100));
    block_on(generation.next()).expect("an event").expect("no error");
    engine.gpu().expect("a GPU").lose_device();
    let error = loop {
        match block_on(generation.next()) {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the stream must end with an error"),
        }
    };
    assert_eq!(error.code(), "device_lost", "{error}");
    assert!(block_on(generation.next()).is_none());
    let mut options = self::options(gguf::tiny_llama());
    options.device = DeviceChoice::Gpu;
    run(load(options).generate(request(text("hello"), 3)));
}

/// A load of the tiny model that must fail before any weight is fetched.
fn refused_before_weights(metadata: Vec<(&str, Value)>, tensors: &[gguf::Tensor]) -> Error {
    let mut options = options(gguf::write(metadata, tensors));
    options.device = DeviceChoice::Gpu;
    let mut progress = |progress: &Progress| assert_ne!(progress.stage, "weights");
    block_on(Engine::load(options, &mut progress)).err().expect("this must not load")
}

#[test]
fn what_a_gpu_cannot_run_is_refused_before_weights_are_fetched() {
    // Heads of 8 where the kernels have multiples of 16; the shapes of the tensors stay.
    let mut metadata = gguf::tiny_llama_metadata();
    for (key, value) in &mut metadata {
        match *key {
            "llama.attention.head_count" => *value = Value::Uint(8),
            "llama.attention.head_count_kv" => *value = Value::Uint(4),
            "llama.rope.dimension_count" => *value = Value::Uint(8),
            _ => {}
        }
    }
    let error = refused_before_weights(metadata, &gguf::tiny_llama_tensors());
    assert!(error.to_string().contains("head_dim is 8, expected a multiple of 16"), "{error}");

    let mut tensors = gguf::tiny_llama_tensors();
    let norm = tensors.iter_mut().find(|tensor| tensor.name == "output_norm.weight").expect("there");
    *norm = gguf::Tensor::new("output_norm.weight", &[64], Format::Q8_0, vec![0; 68]);
    let error = refused_before_weights(gguf::tiny_llama_metadata(), &tensors);
    assert!(matches!(&error, Error::UnsupportedFormat { tensor, .. } if tensor == "output_norm.weight"), "{error}");
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_its_plan() {
    let mut options = options(with("llama.context_length", Some(Value::Uint(1 << 24))));
    options.context = Some(1 << 24);
    options.device = DeviceChoice::Gpu;
    let error = load_error(options);
    assert_eq!(error.code(), "out_of_memory", "{error}");
    assert!(error.to_string().contains("KV of 16777216 tokens"), "{error}");
}

/// Device memory is weights, keys and values, and little else, by our own count and by the driver's allocator.
#[test]
fn device_memory_is_what_the_ledger_says() {
    const MIB: u64 = 1 << 20;
    let mut options = LoadOptions::new(engine::model("smollm2-135m-instruct.gguf"));
    options.device = DeviceChoice::Gpu;
    options.context = Some(2048);
    let header = block_on(read_header(engine::model("smollm2-135m-instruct.gguf").as_mut())).expect("a header");
    let plan = MemoryPlan::of(&header, 2048).expect("a plan");
    let smollm2 = load(options);
    run(smollm2.generate(request(text("Once upon a time"), 8)));
    let ledger = smollm2.executor().counters().allocated_bytes;
    let needed = plan.weights_bytes + plan.kv_bytes;
    assert!((needed..=needed + 64 * MIB).contains(&ledger), "{ledger} bytes, of which {needed} for weights and KV");
    // Metal does not tell.
    let Some([used, reserved]) = smollm2.gpu().expect("a GPU").allocator_bytes() else { return };
    println!(
        "{} MiB weights and KV, {} by the ledger, {} in use, {} reserved",
        needed / MIB,
        ledger / MIB,
        used / MIB,
        reserved / MIB
    );
    assert!((ledger..=ledger + 16 * MIB).contains(&used), "{used} bytes in use, {ledger} by the ledger");
}

#[test]
fn logprobs_are_those_of_the_target_with_and_without_drafts() {
    let engine = tiny();
    let ask = |speculation: &str, temperature: f32| {
        let mut asked = request(text("hello hello hello"), 24);
        asked.logprobs = Some(2);
        asked.sampling.temperature = temperature;
        asked.speculation = Some(speculation.parse().expect("valid"));
        let mut generation = engine.generate(asked);
        let mut pieces = Vec::new();
        loop {
            match block_on(generation.next()).expect("an event").expect("no error") {
                Event::Chunk(chunk) => pieces.extend(chunk.tokens),
                Event::Done(summary) => return (pieces, summary),
            }
        }
    };
    let mut accepted = 0;
    for temperature in [0.0, 1.0] {
        let (plain, _) = ask("off", temperature);
        let (drafted, summary) = ask("drafter=ngram,length=fixed,num_speculative_tokens=4", temperature);
        accepted += summary.speculation.accepted;
        assert_eq!(plain.len(), drafted.len());
        for (plain, drafted) in plain.iter().zip(&drafted) {
            assert_eq!((plain.id, &plain.logprob), (drafted.id, &drafted.logprob));
            let logprob = plain.logprob.as_ref().expect("it was asked for");
            assert_eq!((logprob.chosen.id, logprob.top.len()), (plain.id, 2));
            assert!(logprob.chosen.logprob <= 0.0 && logprob.top[0].logprob >= logprob.chosen.logprob);
            if temperature == 0.0 {
                assert_eq!(logprob.top[0], logprob.chosen, "greedy takes the likeliest");
            }
        }
    }
    assert!(accepted > 0, "a draft was accepted");
    assert!(run(engine.generate(request(text("hello"), 2))).tokens.len() == 2);
}

#[test]
fn logprobs_that_would_not_be_true_are_refused() {
    let engine = tiny();
    let refused = |speculation: &str, top: usize| {
        let mut asked = request(text("hello"), 4);
        asked.logprobs = Some(top);
        asked.speculation = Some(speculation.parse().expect("valid"));
        generate_error(&engine, asked)
    };
    assert_eq!(refused("off", 9).to_string(), "top_logprobs is 9, expected 0 to 8");
    let error = refused("drafter=ngram,accept=typical", 1);
    assert!(error.code() == "bad_option" && error.to_string().contains("accept=match"), "{error}");
}

#[test]
fn a_conversation_that_does_not_fit_is_refused_or_slides() {
    let engine = tiny();
    let mut messages = vec![serde_json::json!({ "role": "system", "content": "sys" })];
    for turn in 0..12 {
        messages.push(serde_json::json!({ "role": "user", "content": format!("question {turn:02}") }));
        messages.push(serde_json::json!({ "role": "assistant", "content": "answer" }));
    }
    messages.push(serde_json::json!({ "role": "user", "content": "and now?" }));
    let mut asked = request(Prompt::Messages(messages.clone().into()), 8);
    let error = generate_error(&engine, asked.clone());
    assert!(matches!(error, Error::PromptTooLong { context_tokens: 128, .. }), "{error}");
    asked.context_overflow = ContextOverflow::Slide;
    let summary = run(engine.generate(asked));
    let dropped = summary.dropped_messages;
    assert!(dropped > 0 && dropped.is_multiple_of(2), "{dropped} messages went");
    assert!(summary.usage.prompt_tokens + 8 <= 129, "{} tokens leave room for an answer", summary.usage.prompt_tokens);
    let mut kept = vec![messages[0].clone()];
    kept.extend_from_slice(&messages[1 + dropped..]);
    let same = run(tiny().generate(request(Prompt::Messages(kept.into()), 8)));
    assert_eq!(summary.tokens, same.tokens, "the system message and the last turns are what is left");
    // As the conversation goes on the same turns are gone for a while, so that it is found in the cache.
    let goes = |more: usize| {
        let (user, answer) = (
            serde_json::json!({ "role": "user", "content": "and now?" }),
            serde_json::json!({ "role": "assistant", "content": "so" }),
        );
        let all: Vec<_> =
            messages.iter().cloned().chain((0..more).flat_map(|_| [answer.clone(), user.clone()])).collect();
        let mut asked = request(Prompt::Messages(all.into()), 8);
        asked.context_overflow = ContextOverflow::Slide;
        run(engine.generate(asked)).dropped_messages
    };
    let gone: Vec<usize> = (0..6).map(goes).collect();
    let slides = gone.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(gone.is_sorted() && slides > 0 && slides <= 3, "{gone:?}");
    let mut raw = request(text("hello"), 4);
    raw.context_overflow = ContextOverflow::Slide;
    assert_eq!(generate_error(&engine, raw).code(), "bad_option");
}

#[test]
fn tools_need_a_template_that_knows_them() {
    let tools = serde_json::json!([{ "type": "function", "function": { "name": "weather" } }]);
    let mut asked = request(Prompt::Messages(serde_json::json!([{ "role": "user", "content": "hi" }])), 2);
    asked.tools = Some(tools);
    let error = generate_error(&tiny(), asked.clone());
    assert!(error.code() == "bad_option" && error.to_string().contains("template"), "{error}");
    let template = "{{ messages[0].content }}{% for t in tools %}{{ t.function.name }}{% endfor %}";
    let engine = load(options(with("tokenizer.chat_template", Some(Value::String(template.to_owned())))));
    let usage = run(engine.generate(asked)).usage;
    assert_eq!(usage.prompt_tokens, "hiweather".len() - 1, "the template has written them; \"th\" is one token");
}

#[test]
fn memory_is_counted_by_purpose() {
    let memory = tiny().memory();
    assert!(memory.weights_bytes > 0 && memory.kv_bytes > 0 && memory.scratch_bytes > 0);
    assert_eq!(memory.weights_bytes + memory.kv_bytes + memory.scratch_bytes, memory.allocated_bytes);
}

fn probed(file: Vec<u8>, device: DeviceChoice, context: Option<usize>) -> foredraft::error::Result<Probe> {
    let model = Some(bytes("tiny.gguf", file));
    block_on(probe(ProbeOptions { model, draft_model: None, device, arithmetic: None, context }))
}

#[test]
fn a_probe_says_what_a_load_does() {
    let engine = tiny();
    let found = probed(gguf::tiny_llama(), DeviceChoice::Cpu, None).unwrap();
    assert_eq!((found.device.name, found.reason), (engine.device().name, engine.device_reason().to_owned()));
    assert_eq!(found.fingerprint, engine.executor().fingerprint());
    let model = found.model.expect("a plan");
    assert_eq!((model.name.as_deref(), model.architecture.as_str()), (Some("tiny"), "llama"));
    assert_eq!(model.memory, engine.target().memory);
    assert!(found.problem.is_none() && found.draft_model.is_none());
    let speed = found.speed;
    assert!(speed.weight_bytes_per_second > 0.0);
    assert_eq!(speed.class, speed.tokens_per_second.map(SpeedClass::of));

    let too_large = probed(gguf::tiny_llama_with_context(1 << 24), DeviceChoice::Gpu, Some(1 << 24));
    let problem = too_large.unwrap().problem.expect("what does not fit is reported");
    assert!(problem.contains("16777216 tokens"), "{problem}");
    let cut = gguf::tiny_llama()[..1000].to_vec();
    assert!(matches!(probed(cut, DeviceChoice::Cpu, None), Err(Error::Truncated { .. })));
}

#[test]
fn speed_has_a_word() {
    for (tokens, class) in [(100.0, SpeedClass::Fast), (20.0, SpeedClass::Fast), (19.9, SpeedClass::Readable)] {
        assert_eq!(SpeedClass::of(tokens), class);
    }
    assert_eq!([2.0, 1.9].map(SpeedClass::of), [SpeedClass::Slow, SpeedClass::VerySlow]);
}
