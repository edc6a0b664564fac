//! The sampler on both executors: ties, twins, and the distribution that keyed noise draws from.

use foredraft::cpu::CpuExecutor;
use foredraft::gpu::kernels::Geometry;
use foredraft::plan::*;
use foredraft::sampling::{SamplingParams, gumbel};
use foredraft::weights::format::Layout;
use futures_lite::future::block_on;

#[path = "support/device.rs"]
#[expect(dead_code, reason = "shared with tests/gpu.rs")]
mod device;
#[path = "support/noise.rs"]
#[expect(dead_code, reason = "shared with tests/gpu.rs")]
mod noise;
use device::gpu;
use noise::Noise;

/// Rows of logits to draw from: a pass embeds one row a column into the logits, and samples. So the input token of a
/// column is the number of its row, and that is what penalties see.
struct Rows {
    plan: PlanId,
    history: BufferId,
    rows: Vec<Vec<f32>>,
}

/// Positions there is room for.
const CONTEXT: usize = 110_000;
/// Where samples go: behind the inputs.
const SAMPLES: usize = 64;
/// Where statistics go: behind the samples of as many passes as a submission has.
const STATS: usize = SAMPLES + 32 * MAX_COLUMNS;

impl Rows {
    fn new(executor: &dyn Executor, rows: Vec<Vec<f32>>) -> Rows {
        let vocabulary = rows[0].len() as u32;
        let layout = Layout::F32;
        let [quants, scales] = executor.alloc_matrix("rows", layout, rows.len(), vocabulary as usize).expect("alloc");
        let weight = MatrixPart { layout, quants, scales, first_row: 0, rows: rows.len() as u32, cols: vocabulary };
        executor.write_matrix(&weight, 0, bytemuck::cast_slice(&rows.concat()), &[]).expect("write");
        let history = executor.alloc("history", CONTEXT).expect("alloc");
        let logits = executor.alloc("logits", MAX_COLUMNS * vocabulary as usize).expect("alloc");
        let steps = vec![
            Step::Embed { weight, history, out: logits, scale: 1.0 },
            Step::Sample { logits, history, vocabulary },
            Step::RowStats { logits, vocabulary },
        ];
        let plan = executor.prepare(Plan { label: "rows".to_owned(), bucket: 16, steps }).expect("prepare");
        Rows { plan, history, rows }
    }

    /// Draws as [`Rows::draw`] does from up to 16 rows, and gives what the statistics of each say.
    fn statistics(
        &self,
        executor: &dyn Executor,
        inputs: &[u32],
        base: usize,
        sampling: &SamplingParams,
    ) -> Vec<(u32, RowStats)> {
        executor.write(BufferId::BIAS, 0, &sampling.bias_words()).expect("write");
        let count = inputs.len();
        let mut params = Params::chain(count, base, 0);
        (params.logit_cols, params.sample_at, params.stats_at) = (count as u32, SAMPLES as u32, STATS as u32);
        let runs = vec![(self.plan, params.sampled(sampling))];
        let read = (SAMPLES, STATS - SAMPLES + count * ROW_STATS_WORDS);
        let ticket = executor.submit(Submission { tokens: vec![(0, inputs.to_vec())], runs, read }).expect("submit");
        let words = block_on(executor.finish(ticket)).expect("finish");
        let stats = words[STATS - SAMPLES..].chunks_exact(ROW_STATS_WORDS).map(RowStats::from_words);
        words[..count].iter().copied().zip(stats).collect()
    }

    /// Draws one token from each row of `inputs`, as chains of up to 16 at positions from `base` on.
    fn draw(&self, executor: &dyn Executor, inputs: &[u32], base: usize, sampling: &SamplingParams) -> Vec<u32> {
        sampling.validate(self.rows[0].len()).expect("valid options");
        if !sampling.logit_bias.is_empty() {
            executor.write(BufferId::BIAS, 0, &sampling.bias_words()).expect("write");
        }
        let mut drawn = Vec::new();
        for (index, round) in inputs.chunks(32 * MAX_COLUMNS).enumerate() {
            let from = base + index * 32 * MAX_COLUMNS;
            // Each pass draws from the same words of TOKENS where all inputs are equal; else one pass a submission.
            let equal = round.iter().all(|&input| input == round[0]);
            for (part, round) in round.chunks(if equal { round.len() } else { MAX_COLUMNS }).enumerate() {
                let runs = round.chunks(MAX_COLUMNS).enumerate().map(|(pass, columns)| {
                    let at = (part + pass) * MAX_COLUMNS;
                    let mut params = Params::chain(columns.len(), from + at, 0);
                    params.logit_cols = columns.len() as u32;
                    params.sample_at = (SAMPLES + pass * MAX_COLUMNS) as u32;
                    params.stats_at = STATS as u32;
                    params = params.sampled(sampling);
                    (self.plan, params)
                });
                let tokens = vec![(0, round[..round.len().min(MAX_COLUMNS)].to_vec())];
                let submission = Submission { tokens, runs: runs.collect(), read: (SAMPLES, round.len()) };
                let ticket = executor.submit(submission).expect("submit");
                drawn.extend(block_on(executor.finish(ticket)).expect("finish"));
            }
        }
        drawn
    }
}

fn executors() -> [Box<dyn Executor>; 2] {
    [Box::new(gpu()), Box::new(CpuExecutor::default())]
}

#[test]
fn ties_go_to_the_lowest_id_and_nan_never_wins() {
    let mut rows = vec![vec![-3.0f32; 4096]; 16];
    for (row, winners) in [[7usize, 8], [0, 4095], [255, 256], [1000, 3000]].into_iter().enumerate() {
        winners.into_iter().for_each(|winner| rows[row][winner] = 2.5);
    }
    rows[4].fill(f32::NAN);
    rows[4][77] = -1e30;
    rows[5].fill(0.0);
    rows[5][0] = -0.0;
    rows[6].fill(f32::NEG_INFINITY);
    rows[7].fill(f32::NEG_INFINITY);
    rows[7][4000] = -5.0;
    for executor in executors() {
        let rows = Rows::new(&*executor, rows.clone());
        let inputs: Vec<u32> = (0..8).collect();
        let greedy = rows.draw(&*executor, &inputs, 0, &SamplingParams::default());
        assert_eq!(greedy, [7, 0, 255, 1000, 77, 0, 0, 4000], "{}", executor.device().name);
        let top_1 = SamplingParams { temperature: 1.0, top_k: 1, ..SamplingParams::default() };
        let drawn = rows.draw(&*executor, &inputs, 0, &top_1);
        assert!([7, 8].contains(&drawn[0]), "top-k keeps ties: {drawn:?}");
        assert_eq!((drawn[4], drawn[7]), (77, 4000), "{}", executor.device().name);
    }
}

/// Options of every kind, alone and together.
fn options(vocabulary: usize) -> Vec<SamplingParams> {
    let off = || SamplingParams { seed: 0x1234_5678_9abc, ..SamplingParams::default() };
    let warm = || SamplingParams { temperature: 0.8, ..off() };
    let bias = |count: usize| (0..count).map(|i| ((i * 7 % vocabulary) as u32, (i % 5) as f32 - 2.0)).collect();
    vec![
        off(),
        SamplingParams { repeat_penalty: 1.3, frequency_penalty: 0.2, presence_penalty: 0.5, ..off() },
        SamplingParams { logit_bias: bias(vocabulary.min(300)), ..off() },
        warm(),
        SamplingParams { top_k: 40, ..warm() },
        SamplingParams { top_p: 0.9, ..warm() },
        SamplingParams { min_p: 0.05, ..warm() },
        SamplingParams {
            top_k: 50,
            top_p: 0.7,
            min_p: 0.01,
            repeat_penalty: 1.1,
            logit_bias: bias(20),
            temperature: 1.5,
            ..warm()
        },
    ]
}

/// Thresholds and noise are computed by other functions on a GPU, so a draw may go to the runner-up where both are within
/// rounding of each other; nothing else may differ.
#[test]
fn sample_agrees_with_its_twin() {
    let (gpu, cpu) = (gpu(), CpuExecutor::default());
    let mut noise = Noise::new(21);
    for vocabulary in [32, 992, 6400] {
        let rows: Vec<Vec<f32>> = (0..16)
            .map(|row| {
                (0..vocabulary)
                    .map(|_| (1.0 + row as f32 / 4.0) * (noise.float() + 3.0 * noise.float().powi(3)))
                    .collect()
            })
            .collect();
        let (on_gpu, on_cpu) = (Rows::new(&gpu, rows.clone()), Rows::new(&cpu, rows));
        let mut differing = 0;
        for sampling in options(vocabulary) {
            for base in [0, 5, 300] {
                let inputs: Vec<u32> = (0..16).map(|_| noise.below(16) as u32).collect();
                let found = on_gpu.draw(&gpu, &inputs, base, &sampling);
                let expected = on_cpu.draw(&cpu, &inputs, base, &sampling);
                for (column, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
                    if found == expected {
                        continue;
                    }
                    differing += 1;
                    assert!(sampling.temperature > 0.0, "greedy: {found} and {expected} of {vocabulary}");
                    let score = |token: u32| {
                        let row = &on_cpu.rows[inputs[column] as usize];
                        row[token as usize] / sampling.temperature
                            + gumbel(
                                [sampling.seed as u32, (sampling.seed >> 32) as u32],
                                (base + column + 1) as u32,
                                token,
                            )
                    };
                    let gap = (score(found) - score(expected)).abs();
                    assert!(gap < 1e-3, "{found} and {expected} of {vocabulary} are {gap} apart: {sampling:?}");
                }
            }
        }
        assert!(differing <= 2, "{differing} of {} draws differ", 8 * 3 * 16);
    }
}

/// What the order of `sampling` makes of a row, in f64, written independently: probabilities.
fn distribution(row: &[f32], recent: &[u32], sampling: &SamplingParams) -> Vec<f64> {
    let mut l: Vec<f64> = row.iter().map(|&l| f64::from(l)).collect();
    for &(token, bias) in &sampling.logit_bias {
        l[token as usize] += f64::from(bias);
    }
    for (token, l) in l.iter_mut().enumerate() {
        let count = recent.iter().filter(|&&other| other as usize == token).count();
        if count > 0 {
            let repeat = f64::from(sampling.repeat_penalty);
            *l = if *l > 0.0 { *l / repeat } else { *l * repeat };
            *l -= count as f64 * f64::from(sampling.frequency_penalty) + f64::from(sampling.presence_penalty);
        }
    }
    l.iter_mut().for_each(|l| *l /= f64::from(sampling.temperature));
    let maximum = l.iter().copied().fold(f64::MIN, f64::max);
    let mut sorted = l.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    if sampling.top_k > 0 {
        sorted.truncate(sampling.top_k as usize);
    }
    let mass = |l: &[f64]| l.iter().map(|l| (l - maximum).exp()).sum::<f64>();
    let wanted = f64::from(sampling.top_p) * mass(&sorted);
    let kept = (1..=sorted.len()).find(|&n| mass(&sorted[..n]) >= wanted).unwrap_or(sorted.len());
    let threshold = sorted[kept - 1].max(maximum + f64::from(sampling.min_p).ln());
    let weights: Vec<f64> = l.iter().map(|&l| if l >= threshold { (l - maximum).exp() } else { 0.0 }).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Both executors against sums in f64 over a row that was processed here; lists against a sort.
#[test]
fn row_stats_agrees_with_its_twin_and_with_sums_over_the_row() {
    let mut noise = Noise::new(33);
    let [software, cpu] = executors();
    let hardware: Box<dyn Executor> = Box::new(device::gpu_with(None, Some(Geometry::HARDWARE)));
    let executors = [software, cpu, hardware];
    for vocabulary in [32, 992, 6400] {
        let mut rows: Vec<Vec<f32>> = (0..16)
            .map(|row| (0..vocabulary).map(|_| row as f32 * (noise.float() + 3.0 * noise.float().powi(3))).collect())
            .collect();
        rows[1].fill(0.25);
        rows[2][5..].fill(f32::NEG_INFINITY);
        rows[3].fill(f32::NEG_INFINITY);
        rows[4][3] = f32::NAN;
        rows[5][2] = 1e4;
        let plain = |options: &SamplingParams| SamplingParams {
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            ..options.clone()
        };
        for executor in &executors {
            let on_device = Rows::new(&**executor, rows.clone());
            for sampling in options(vocabulary).iter().map(plain) {
                let (base, inputs) = (noise.below(300), (0..16).collect::<Vec<u32>>());
                let found = on_device.statistics(&**executor, &inputs, base, &sampling);
                for (column, (sample, stats)) in found.iter().enumerate() {
                    let name = format!("{}, {vocabulary}, row {column}, {sampling:?}", executor.device().name);
                    check_stats(&rows[column], (base + column + 1) as u32, &sampling, *sample, stats, &name);
                }
            }
        }
    }
}

/// Against the row, where sampling is nothing but bias, temperature and noise.
fn check_stats(row: &[f32], position: u32, sampling: &SamplingParams, sample: u32, stats: &RowStats, name: &str) {
    let mut logits: Vec<f32> = row.to_vec();
    sampling.logit_bias.iter().for_each(|&(token, bias)| logits[token as usize] += bias);
    logits.iter_mut().filter(|logit| logit.is_nan()).for_each(|logit| *logit = f32::NEG_INFINITY);
    if sampling.temperature > 0.0 {
        logits.iter_mut().for_each(|logit| *logit /= sampling.temperature);
    }
    let maximum = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let possible: Vec<u32> =
        (0..row.len() as u32).filter(|&token| logits[token as usize] > f32::NEG_INFINITY).collect();
    let sum: f64 = possible.iter().map(|&token| (f64::from(logits[token as usize]) - maximum).exp()).sum();
    let ln_p = |token: u32| (f64::from(logits[token as usize]) - maximum - sum.ln()) as f32;
    let close =
        |found: f32, expected: f32| found == expected || (found - expected).abs() < 2e-5 * (1.0 + expected.abs());
    let moment = |power: i32| -> f32 {
        possible.iter().map(|&token| f64::from(ln_p(token)).exp() * f64::from(ln_p(token)).powi(power)).sum::<f64>()
            as f32
    };
    assert!(close(stats.entropy, -moment(1)), "entropy {} and {}: {name}", stats.entropy, -moment(1));
    assert!(close(stats.second_moment, moment(2)), "{} and {}: {name}", stats.second_moment, moment(2));
    let expected = if possible.is_empty() { f32::NEG_INFINITY } else { ln_p(sample) };
    assert!(close(stats.sample_logp, expected), "sample {} and {expected}: {name}", stats.sample_logp);

    let seed = [sampling.seed as u32, (sampling.seed >> 32) as u32];
    let noisy = |token: u32| match sampling.temperature > 0.0 {
        true => logits[token as usize] + gumbel(seed, position, token),
        false => logits[token as usize],
    };
    let plain = |token: u32| logits[token as usize];
    check_list(&stats.top, &possible, plain, 0.0, name);
    check_list(&stats.drawn, &possible, noisy, if sampling.temperature > 0.0 { 1e-3 } else { 0.0 }, name);
    for &(token, found) in stats.top.iter().chain(&stats.drawn) {
        assert!(close(found, ln_p(token)), "token {token} {found} and {}: {name}", ln_p(token));
    }
    if let Some(&(first, _)) = stats.drawn.first() {
        assert_eq!(first, sample, "without truncation the first that is drawn is the sample: {name}");
    }
}

/// A list against a sort of all tokens; where scores are within `gap`, devices may differ in their order.
fn check_list(found: &[(u32, f32)], possible: &[u32], score: impl Fn(u32) -> f32, gap: f32, name: &str) {
    let mut sorted = possible.to_vec();
    sorted.sort_by(|&a, &b| score(b).partial_cmp(&score(a)).expect("no NaN").then(a.cmp(&b)));
    sorted.truncate(TOP);
    assert_eq!(found.len(), sorted.len(), "{name}");
    for (&(found, _), expected) in found.iter().zip(sorted) {
        let near = gap > 0.0 && (score(found) - score(expected)).abs() < gap;
        assert!(found == expected || near, "{found} and {expected}: {name}");
    }
    let mut tokens: Vec<u32> = found.iter().map(|pair| pair.0).collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), found.len(), "{name}");
}

/// The chi-square that a fair sample exceeds once in 100,000 times (Wilson and Hilferty).
fn critical(freedom: f64) -> f64 {
    let t = 2.0 / (9.0 * freedom);
    freedom * (1.0 - t + 4.265 * t.sqrt()).powi(3)
}

#[test]
fn keyed_draws_follow_the_softmax() {
    const DRAWS: usize = 100_000;
    let mut noise = Noise::new(5);
    let vocabulary = 64;
    let flat = vec![0.0; vocabulary];
    let steep: Vec<f32> = (0..vocabulary).map(|i| 4.0 - i as f32 / 4.0).collect();
    let random: Vec<f32> = noise.floats(vocabulary).iter().map(|v| 3.0 * v).collect();
    let warm = |seed| SamplingParams { temperature: 0.8, seed, ..SamplingParams::default() };
    let penalties = SamplingParams {
        repeat_penalty: 1.2,
        presence_penalty: 0.1,
        frequency_penalty: 0.05,
        repeat_last_n: 4,
        logit_bias: vec![(3, 1.0), (60, -0.5)],
        ..warm(3)
    };
    let truncated = SamplingParams { top_k: 30, top_p: 0.9, min_p: 0.01, ..warm(4) };
    for executor in executors() {
        let rows = Rows::new(&*executor, vec![flat.clone(), steep.clone(), random.clone()]);
        let cases = [(0, warm(1)), (2, truncated.clone()), (1, penalties.clone())];
        for (row, sampling) in cases {
            // The whole history is the row's own number, so every draw sees the same recent tokens.
            executor.write(rows.history, 0, &vec![row; CONTEXT]).expect("write");
            let drawn = rows.draw(&*executor, &[row; DRAWS], 8, &sampling);
            let recent = vec![row; sampling.repeat_last_n as usize];
            let expected = distribution(&rows.rows[row as usize], &recent, &sampling);
            let mut counts = vec![0.0; vocabulary];
            drawn.iter().for_each(|&token| counts[token as usize] += 1.0);
            let (mut chi_square, mut freedom, mut rare) = (0.0, -1.0, (0.0, 0.0));
            for (&count, &p) in counts.iter().zip(&expected) {
                let expected = p * DRAWS as f64;
                assert!(p > 0.0 || count == 0.0, "a token that was cut off was drawn: {sampling:?}");
                if expected < 8.0 {
                    rare = (rare.0 + count, rare.1 + expected);
                } else {
                    chi_square += (count - expected).powi(2) / expected;
                    freedom += 1.0;
                }
            }
            if rare.1 >= 8.0 {
                chi_square += (rare.0 - rare.1) * (rare.0 - rare.1) / rare.1;
                freedom += 1.0;
            }
            let name = executor.device().name;
            assert!(freedom >= 5.0, "{sampling:?} leaves nothing to test");
            let most = critical(freedom);
            assert!(chi_square < most, "{name}: chi-square {chi_square} of {freedom}, at most {most}: {sampling:?}");
            println!("{name}: row {row}: chi-square {chi_square:.1}, {freedom} degrees of freedom");
        }
    }
}
