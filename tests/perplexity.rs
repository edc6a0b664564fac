//! Both architectures, both executors, both arithmetics, against exact f32 arithmetic on the dequantised weights.

#[path = "support/engine.rs"]
mod engine;

use engine::{DEVICES, load, model};
use foredraft::engine::LoadOptions;
use foredraft::perplexity::perplexity;
use foredraft::plan::Arithmetic;
use futures_lite::future::block_on;

fn check(file: &str, tokens: usize, expected: f64) {
    for (device, arithmetic) in
        DEVICES.into_iter().flat_map(|device| [(device, Arithmetic::F32), (device, Arithmetic::Q8)])
    {
        let mut options = LoadOptions::new(model(file));
        options.device = device;
        options.arithmetic = Some(arithmetic);
        options.context = Some(256);
        let engine = load(options);
        let text = include_str!("prompts/perplexity.txt");
        let result = block_on(perplexity(&engine, text, 256)).expect("perplexity");
        println!("{file} on {}, {arithmetic:?}: {}", engine.device().name, result.perplexity);
        assert_eq!((result.tokens, result.scored), (tokens, 381), "{file}");
        let off = result.perplexity / expected - 1.0;
        let most = if arithmetic == Arithmetic::F32 { 1e-3 } else { 1e-2 };
        assert!(
            off.abs() < most,
            "{file} on {device:?}, {arithmetic:?}: {} is {off:e} off {expected}",
            result.perplexity
        );
    }
}

#[test]
fn smollm2_is_within_a_thousandth_or_a_hundredth() {
    check("smollm2-135m-instruct.gguf", 977, 16.6150);
}

#[test]
fn gemma3_is_within_a_thousandth_or_a_hundredth() {
    check("gemma-3-270m.gguf", 925, 22.8825);
}
