//! Drafters that run a model, on a small generated one: what they draft, and in how many passes.

#[path = "support/engine.rs"]
mod engine;
#[path = "support/gguf.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod gguf;

use engine::{DEVICES, bytes, load, request, run};
use foredraft::engine::{DeviceChoice, Engine, LoadOptions};
use foredraft::generation::Prompt;
use foredraft::sampling::SamplingParams;
use foredraft::summary::Summary;

/// A tiny model that drafts for itself: what it drafts is always right.
fn twins(device: DeviceChoice) -> Engine {
    let file = || bytes("tiny.gguf", gguf::tiny_llama_with_context(512));
    let mut options = LoadOptions::new(file());
    options.draft_model = Some(file());
    options.device = device;
    load(options)
}

fn generate(engine: &Engine, temperature: f32, speculation: &str) -> Summary {
    let mut request = request(Prompt::Tokens((0..40).map(|at| 65 + at % 5).collect()), 120);
    request.sampling = SamplingParams { temperature, seed: 4, ..SamplingParams::default() };
    request.speculation = Some(speculation.parse().expect("valid"));
    run(engine.generate(request))
}

#[test]
fn trees_of_a_model_are_right_and_cost_a_pass_a_level() {
    for device in DEVICES {
        let engine = twins(device);
        for temperature in [0.0, 0.9] {
            let plain = generate(&engine, temperature, "off");
            let chain = generate(&engine, temperature, "drafter=model,length=fixed,num_speculative_tokens=4");
            let seen = generate(&engine, temperature, "drafter=model,length=survival,num_speculative_tokens=4");
            let tree =
                generate(&engine, temperature, "drafter=model,length=fixed,tree=dynamic,num_speculative_tokens=12");
            for (name, summary) in [("chain", &chain), ("seen", &seen), ("tree", &tree)] {
                assert_eq!(summary.tokens, plain.tokens, "{name} at {temperature} on {device:?}");
            }
            let counts = |summary: &Summary| (summary.speculation.rounds, summary.speculation.submits);
            assert_eq!(chain.speculation.accepted, chain.speculation.drafted, "the same model, the same noise");
            assert_eq!(
                counts(&chain).0,
                counts(&chain).1,
                "a chain that nobody has to see is in the round's one submit"
            );
            assert!(
                counts(&seen).1 > 2 * counts(&seen).0,
                "a policy that looks takes a submit a step: {:?}",
                counts(&seen)
            );
            assert!(counts(&tree).1 > counts(&tree).0);
            let tree = &tree.speculation;
            assert!(
                tree.accepted < tree.drafted && tree.mean_acceptance_length > 2.0,
                "{}",
                tree.mean_acceptance_length
            );
        }
    }
}

#[test]
fn a_nested_draft_takes_fewer_passes() {
    for device in DEVICES {
        let engine = twins(device);
        let plain = generate(&engine, 0.0, "off");
        let seen = "length=survival,num_speculative_tokens=7";
        let model = generate(&engine, 0.0, &format!("drafter=model,{seen}"));
        let nested = generate(&engine, 0.0, &format!("drafter=nested,{seen}"));
        assert_eq!((&model.tokens, &nested.tokens), (&plain.tokens, &plain.tokens));
        let passes = |summary: &Summary| summary.speculation.submits - summary.speculation.rounds;
        println!("{device:?}: {} passes nested, {} alone", passes(&nested), passes(&model));
        assert!(passes(&nested) < passes(&model), "{} passes, {} without", passes(&nested), passes(&model));
        assert_eq!(nested.speculation.accepted, nested.speculation.drafted, "it drafts what the model would");
    }
}

#[test]
fn phrases_lengthen_the_drafts_of_a_model() {
    let engine = twins(DeviceChoice::Cpu);
    let plain = generate(&engine, 0.0, "off");
    let model = generate(&engine, 0.0, "drafter=model,length=fixed,num_speculative_tokens=2");
    let phrases = generate(&engine, 0.0, "drafter=ouroboros,ouroboros_gamma=2,length=fixed,num_speculative_tokens=8");
    assert_eq!((&model.tokens, &phrases.tokens), (&plain.tokens, &plain.tokens));
    let length = |summary: &Summary| summary.speculation.mean_acceptance_length;
    println!("{} tokens a round with phrases, {} without", length(&phrases), length(&model));
    assert!(length(&phrases) > length(&model), "the twin is always right, so phrases are all there is to gain");
}

#[test]
fn an_answer_joins_the_store_when_its_request_ends() {
    let engine = twins(DeviceChoice::Cpu);
    let rounds = |speculation: &str| generate(&engine, 0.9, speculation).speculation.rounds;
    let suffix = "drafter=suffix,length=fixed";
    rounds("off");
    let first = rounds(suffix);
    let saved = engine.save_suffix_store();
    let second = rounds(suffix);
    assert!(2 * second < first, "{second} rounds of an answer that is known, {first} before");
    let known = engine.save_suffix_store();
    assert_eq!(rounds("drafter=suffix,length=fixed,suffix_store=0"), first, "asked not to, it copies nothing");
    assert!(engine.save_suffix_store() == known, "and nothing of it is kept");
    engine.reset_learned();
    assert_eq!(rounds(suffix), first, "what was forgotten does not come back");
    engine.reset_learned();
    engine.load_suffix_store(&saved).expect("its own");
    assert_eq!(rounds(suffix), second);
}
