//! Twin of `shaders/row_stats.wgsl`.

use super::Buffers;
use crate::plan::{BufferId, Params, ROW_STATS_WORDS, TOP};
use crate::sampling::{gumbel, ordered_key};

/// Entropy, second moment, the sample's `ln p` and two lists of tokens a logit column, to
/// `TOKENS[stats_at + c * ROW_STATS_WORDS]`; sums in f64.
pub(super) fn row_stats(logits: BufferId, vocabulary: u32, params: &Params, buffers: &mut Buffers) {
    let size = vocabulary as usize;
    for index in 0..params.logit_cols as usize {
        let row = &buffers.floats(logits)[index * size..][..size];
        let sampled = buffers.words(BufferId::TOKENS)[params.sample_at as usize + index];
        let position = params.base + params.depth(params.logit_first as usize + index) + 1;
        let words = statistics(row, sampled, position, params);
        buffers.write(BufferId::TOKENS, params.stats_at as usize + index * ROW_STATS_WORDS, &words);
    }
}

/// The words of one column.
pub(crate) fn statistics(row: &[f32], sampled: u32, position: u32, params: &Params) -> Vec<u32> {
    let noisy = params.temperature > 0.0;
    let (mut likeliest, mut drawn) = (List::default(), List::default());
    for (token, &logit) in row.iter().enumerate().filter(|(_, logit)| possible(**logit)) {
        let token = token as u32;
        // Adding 0 makes -0 equal to it by its bits too.
        likeliest.offer(ordered_key(logit + 0.0), token);
        if noisy {
            drawn.offer(ordered_key(logit + gumbel(params.seed, position, token)), token);
        }
    }
    if !noisy {
        drawn = likeliest.clone();
    }
    let Some(&(_, largest)) = likeliest.0.first() else {
        let absent = [u32::MAX, f32::NEG_INFINITY.to_bits()].repeat(2 * TOP);
        return [&[0, 0, f32::NEG_INFINITY.to_bits()], absent.as_slice()].concat();
    };
    let maximum = row[largest as usize];
    // 0 for the largest even where that is infinite.
    let below = |logit: f32| if logit == maximum { 0.0 } else { f64::from(logit) - f64::from(maximum) };
    let (mut z, mut first, mut second) = (0.0, 0.0, 0.0);
    for x in row.iter().copied().filter(|&logit| possible(logit)).map(|logit| below(logit).max(-200.0)) {
        let e = x.exp();
        (z, first, second) = (z + e, first + e * x, second + e * x * x);
    }
    let ln_z = z.ln();
    let ln_p = |token: u32| match row.get(token as usize) {
        Some(&logit) if possible(logit) => (below(logit) - ln_z) as f32,
        _ => f32::NEG_INFINITY,
    };
    let entropy = ln_z - first / z;
    let second_moment = second / z - 2.0 * ln_z * first / z + ln_z * ln_z;
    let mut words = vec![(entropy as f32).to_bits(), (second_moment as f32).to_bits(), ln_p(sampled).to_bits()];
    for list in [likeliest, drawn] {
        let tokens = list.0.iter().map(|&(_, token)| token).chain(std::iter::repeat(u32::MAX)).take(TOP);
        words.extend(tokens.flat_map(|token| [token, ln_p(token).to_bits()]));
    }
    words
}

/// A token of probability 0 is in no list; Sample leaves no NaN in a row, but one would count as -inf.
fn possible(logit: f32) -> bool {
    logit > f32::NEG_INFINITY
}

/// The first [`TOP`] (key, token) by falling key; tokens are offered in ascending order, so the lowest stays first.
#[derive(Clone, Default)]
struct List(Vec<(u32, u32)>);

impl List {
    fn offer(&mut self, key: u32, token: u32) {
        if self.0.len() == TOP && self.0[TOP - 1].0 >= key {
            return;
        }
        self.0.truncate(TOP - 1);
        let at = self.0.partition_point(|&(other, _)| other >= key);
        self.0.insert(at, (key, token));
    }
}
