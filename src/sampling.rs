//! Sampling, the same for plain and speculative decoding: the order of the steps, their options, and the keyed noise.
//!
//! One token is drawn from a row of logits `l` at a fixed order, by `shaders/sample.wgsl` and its twin `cpu/sample.rs`:
//! 1. *logit bias*: `l[t] += bias[t]`; a NaN counts as `-inf` from here on;
//! 2. *penalties*, once for each token among the last `penalty_last_n` on the path to this row (the row's own input token
//!    included), which occurs `n` times there: `l /= repeat` if `l > 0` else `l *= repeat`, then
//!    `l -= n * frequency + presence`;
//! 3. *temperature*: at 0 the result is the largest `l`, the lowest id among equals, and the rest is skipped; else
//!    `l /= temperature`;
//! 4. *truncation*, a threshold on `l`, so ties stay: `top_k` (the largest threshold that keeps at least k), then
//!    `top_p` (among those, the largest that keeps a share of at least p of their probability), then `min_p`
//!    (`max + ln(min_p)`);
//! 5. *noise*: `l + gumbel(seed, position, token)` where `position` is the position the new token will have;
//! 6. *argmax*, the lowest id among equals.
//!
//! Noise depends on nothing but (seed, position, token), so the token drawn at a position is the same whether its row was
//! computed alone or as a column of a verify pass, and a draft model that uses the same noise agrees more often.

use crate::error::{Error, Result};

/// Entries of logit bias at most.
pub const MAX_LOGIT_BIAS: usize = 1024;
/// Tokens of history that penalties may look back at.
pub const MAX_PENALTY_TOKENS: usize = 256;

/// Options of one request. The defaults are greedy.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingParams {
    /// 0 is greedy; 1 leaves the model's distribution alone.
    pub temperature: f32,
    /// Keep the k likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set with this share of the probability; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this likely relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted from logits of recent tokens; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted from logits of recent tokens, times their count; 0 is off.
    pub frequency_penalty: f32,
    /// How many last tokens are recent, at most 256.
    pub repeat_last_n: u32,
    /// Added to the logits of tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Same seed, same text.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repeat_last_n: 64,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// Checks every value against what it may be and names the first that is wrong.
    pub fn validate(&self, vocabulary: usize) -> Result<()> {
        let check = |name: &str, value: f32, ok: bool, expected: &str| {
            if value.is_finite() && ok {
                return Ok(());
            }
            Err(Error::BadOption { name: name.to_owned(), found: value.to_string(), expected: expected.to_owned() })
        };
        // Below a thousandth logits would overflow; 0 is what is meant.
        let temperature = self.temperature;
        check(
            "temperature",
            temperature,
            temperature == 0.0 || (1e-3..=100.0).contains(&temperature),
            "0, or 0.001 to 100",
        )?;
        check("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1")?;
        check("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1")?;
        check("repeat_penalty", self.repeat_penalty, (0.01..=100.0).contains(&self.repeat_penalty), "0.01 to 100")?;
        check("presence_penalty", self.presence_penalty, self.presence_penalty.abs() <= 100.0, "-100 to 100")?;
        check("frequency_penalty", self.frequency_penalty, self.frequency_penalty.abs() <= 100.0, "-100 to 100")?;
        let last_n = self.repeat_last_n;
        check("repeat_last_n", last_n as f32, last_n as usize <= MAX_PENALTY_TOKENS, "0 to 256")?;
        let entries = self.logit_bias.len();
        check("logit_bias entries", entries as f32, entries <= MAX_LOGIT_BIAS, "at most 1024")?;
        let mut seen = std::collections::HashSet::new();
        for &(token, bias) in &self.logit_bias {
            check("logit_bias token", token as f32, (token as usize) < vocabulary, "a token of the vocabulary")?;
            check("logit_bias token", token as f32, seen.insert(token), "each token once")?;
            check("logit_bias", bias, bias.abs() <= 1e4, "-10000 to 10000")?;
        }
        Ok(())
    }

    /// Pairs (token, `f32` bits) as kernels read them.
    pub fn bias_words(&self) -> Vec<u32> {
        self.logit_bias.iter().flat_map(|&(token, bias)| [token, bias.to_bits()]).collect()
    }
}

/// A counter-based generator: 128 bits in, 128 well mixed bits out (pcg4d, Jarzynski and Olano,
/// "Hash Functions for GPU Rendering", JCGT 9(3), 2020).
pub fn pcg4d(key: [u32; 4]) -> [u32; 4] {
    let [mut x, mut y, mut z, mut w] = key.map(|word| word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let mut stir = |rounds_done: bool| {
        x = x.wrapping_add(y.wrapping_mul(w));
        y = y.wrapping_add(z.wrapping_mul(x));
        z = z.wrapping_add(x.wrapping_mul(y));
        w = w.wrapping_add(y.wrapping_mul(z));
        if !rounds_done {
            (x, y, z, w) = (x ^ (x >> 16), y ^ (y >> 16), z ^ (z >> 16), w ^ (w >> 16));
        }
    };
    stir(false);
    stir(true);
    [x, y, z, w]
}

/// Gumbel noise of a token at a position: `-ln(E)`, `E = -ln(1 - v)` exponential, `v` uniform in (0, 1).
///
/// The winner of an argmax has a small `E`, so `E` must be accurate where `v` is small (`u = 1 - v` near 1): there
/// `-ln(1 - v)` is summed as its series, and no random bit is lost.
pub fn gumbel(seed: [u32; 2], position: u32, token: u32) -> f32 {
    let bits = pcg4d([token, position, seed[0], seed[1]])[0];
    let v = ((bits as f32 + 0.5) * (1.0 / 4_294_967_296.0)).min(0.999_999_94);
    let exponential = if v < 0.1 {
        v * (1.0
            + v * (1.0 / 2.0 + v * (1.0 / 3.0 + v * (1.0 / 4.0 + v * (1.0 / 5.0 + v * (1.0 / 6.0 + v * (1.0 / 7.0)))))))
    } else {
        -(1.0 - v).ln()
    };
    -exponential.ln()
}

/// Maps floats to integers of the same order (`-inf` lowest), for thresholds found bit by bit.
pub fn ordered_key(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 }
}

/// The largest of the thresholds of top-k, top-p and min-p: tokens of smaller logits are never drawn.
pub fn threshold(logits: &[f32], top_k: u32, top_p_share: f32, min_p: f32) -> f32 {
    let maximum = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut threshold = f32::NEG_INFINITY;
    let k = top_k as usize;
    if k > 0 && k < logits.len() {
        let mut sorted = logits.to_vec();
        threshold = *sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
    }
    if top_p_share < 1.0 {
        threshold = threshold.max(top_p(logits, threshold, maximum, top_p_share));
    }
    if min_p > 0.0 {
        threshold = threshold.max(maximum + min_p.ln().min(0.0));
    }
    threshold
}

/// The largest `t >= floor` such that the logits `>= t` hold a share `p` of the probability of those `>= floor`.
fn top_p(logits: &[f32], floor: f32, maximum: f32, p: f32) -> f32 {
    let kept = || logits.iter().copied().filter(|&logit| logit >= floor);
    let wanted = f64::from(p) * kept().map(|logit| f64::from((logit - maximum).exp())).sum::<f64>();
    // Nearly all of the probability is near the maximum: sort that part first, all only if it does not do.
    for depth in [20.0, f32::INFINITY] {
        let mut candidates: Vec<f32> = kept().filter(|&logit| logit >= maximum - depth).collect();
        candidates.sort_unstable_by(|a, b| b.total_cmp(a));
        let mut mass = 0.0;
        for logit in candidates {
            mass += f64::from((logit - maximum).exp());
            if mass >= wanted {
                return logit;
            }
        }
    }
    floor
}

/// The distribution that [`gumbel`] noise on these logits draws from: 0 for what truncation cuts; at temperature 0 the
/// argmax, the lowest id among equals. The logits are those after step 3, already divided by the temperature, as the
/// sampler leaves them in its row: it is not applied again.
pub fn distribution(logits: &[f32], params: &SamplingParams) -> Vec<f64> {
    let maximum = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if params.temperature <= 0.0 {
        let best = logits.iter().position(|&logit| logit == maximum);
        return (0..logits.len()).map(|token| f64::from(u8::from(Some(token) == best))).collect();
    }
    let threshold = threshold(logits, params.top_k, params.top_p, params.min_p);
    let weight = |&logit: &f32| if logit < threshold { 0.0 } else { f64::from(logit - maximum).exp() };
    let total: f64 = logits.iter().map(weight).sum();
    logits.iter().map(|logit| weight(logit) / total).collect()
}
