//! Twin of `shaders/sample.wgsl`; the order of the steps is that of [`crate::sampling`].

use super::Buffers;
use crate::plan::{BufferId, Params};
use crate::sampling::{gumbel, threshold};

/// One token a logit column, to `TOKENS[sample_at + c]`; changes the logits in place.
pub(super) fn sample(logits: BufferId, history: BufferId, vocabulary: u32, params: &Params, buffers: &mut Buffers) {
    let size = vocabulary as usize;
    for index in 0..params.logit_cols as usize {
        let column = params.logit_first as usize + index;
        let recent = recent_tokens(history, column, params, buffers);
        let token = buffers.with_floats(logits, |logits, buffers| {
            let logits = &mut logits[index * size..][..size];
            let bias = &buffers.words(BufferId::BIAS)[..2 * params.bias_count as usize];
            process(logits, bias, &recent, params);
            draw(logits, params.base + params.depth(column) + 1, params)
        });
        buffers.write(BufferId::TOKENS, params.sample_at as usize + index, &[token]);
    }
}

/// The last `penalty_last_n` tokens on the path that ends in `column`, that column's own included.
fn recent_tokens(history: BufferId, column: usize, params: &Params, buffers: &Buffers) -> Vec<u32> {
    let position = params.base + params.depth(column);
    let count = params.penalty_last_n.min(position + 1);
    let history = buffers.words(history);
    (position + 1 - count..=position).map(|position| history[params.slot(column, position) as usize]).collect()
}

/// Bias, penalties and temperature.
fn process(logits: &mut [f32], bias: &[u32], recent: &[u32], params: &Params) {
    for pair in bias.chunks_exact(2) {
        if let Some(logit) = logits.get_mut(pair[0] as usize) {
            *logit += f32::from_bits(pair[1]);
        }
    }
    logits.iter_mut().for_each(|logit| *logit = if logit.is_nan() { f32::NEG_INFINITY } else { *logit });
    for (index, &token) in recent.iter().enumerate() {
        if recent[..index].contains(&token) {
            continue;
        }
        let count = recent[index..].iter().filter(|&&other| other == token).count() as f32;
        let Some(logit) = logits.get_mut(token as usize) else { continue };
        *logit = if *logit > 0.0 { *logit / params.repeat_penalty } else { *logit * params.repeat_penalty };
        *logit -= count * params.frequency_penalty + params.presence_penalty;
    }
    if params.temperature > 0.0 {
        logits.iter_mut().for_each(|logit| *logit /= params.temperature);
    }
}

/// Truncation, noise and argmax; ties go to the lowest id.
pub(crate) fn draw(logits: &[f32], position: u32, params: &Params) -> u32 {
    if params.temperature <= 0.0 {
        return first_largest(logits);
    }
    let threshold = threshold(logits, params.top_k, params.top_p, params.min_p);
    let mut best = (f32::NEG_INFINITY, 0);
    for (token, &logit) in logits.iter().enumerate() {
        if logit < threshold {
            continue;
        }
        let score = logit + gumbel(params.seed, position, token as u32);
        if score > best.0 {
            best = (score, token as u32);
        }
    }
    best.1
}

/// Of logits without NaN; 0 where all are -inf.
fn first_largest(logits: &[f32]) -> u32 {
    // In lanes, which the compiler may not do with one maximum, and without the places, which are sought afterwards.
    let mut lanes = [f32::NEG_INFINITY; 8];
    let (eights, rest) = logits.as_chunks::<8>();
    for eight in eights {
        lanes.iter_mut().zip(eight).for_each(|(lane, &logit)| *lane = if logit > *lane { logit } else { *lane });
    }
    let largest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&logit| logit == largest).unwrap_or(0) as u32
}
