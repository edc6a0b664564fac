//! Speculation changes no token: on and off give the same, whatever drafts, at any temperature, on both executors.
//! Every comparison also asserts that drafts were accepted and rejected, so that it cannot pass by not speculating.

#[path = "support/engine.rs"]
mod engine;

use engine::{DEVICES, all_prompts, full, load, model, prompt, request, run, smollm2};
use foredraft::engine::{DeviceChoice, Engine, LoadOptions};
use foredraft::generation::Prompt;
use foredraft::sampling::SamplingParams;
use foredraft::speculate::SpeculationConfig;

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
    assert_eq!((rounds.submits, rounds.maps), (rounds.rounds, rounds.rounds), "one submit and one map a round");
    (summary.tokens, rounds.drafted, rounds.accepted)
}

fn compare(engine: &Engine, prompts: &[String], count: usize, name: &str, sampling: &SamplingParams) {
    let mut totals = [("drafter=ngram", 0, 0), ("drafter=model,num_speculative_tokens=3", 0, 0)];
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
            let (plain, same) = (run("off"), run("drafter=ngram"));
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
