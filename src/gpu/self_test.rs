//! The self-test at load: kernels that have a text for each width must give a column the same bits in every width, mat-vecs
//! what the host computes as well.

use super::kernels::Kernel;
use super::{GpuExecutor, ShapeClass};
use crate::error::{Error, Result};
use crate::plan::{
    Arithmetic, AttentionShape, COLUMN_BUCKETS, Columns, Executor, KV_CHUNK, MAX_COLUMNS, MatrixPart, Params, Plan,
    Q8_WORDS, Step, Submission, UNIFORM_WORDS, Vector,
};
use crate::sampling::pcg4d;
use crate::weights::decode::{decode_all, quantise};
use crate::weights::format::{BLOCK, Layout};

/// Rows of the test matrix: not a multiple of what a workgroup computes.
const ROWS: usize = 37;
/// Weights in a row: blocks enough to give every lane one and some lanes two.
const COLS: usize = 1280;
/// Position whose attention is tested: in a second chunk, with a root in either, and not at the end of a step.
const POSITION: usize = KV_CHUNK + 11;
/// A shape for where no model is known: its queries are bound as a uniform, but for the widest pass.
const SHAPE: AttentionShape =
    AttentionShape { heads: 16, kv_heads: 4, head_dim: 64, capacity: 0, window: 0, scale: 0.125 };
/// Largest difference to the host's sums, relative to the sum of the products' sizes.
const TOLERANCE: f64 = 1e-5;

/// What the self-test found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SelfTestReport {
    /// Kernels whose texts for all widths gave equal bits: mat-vecs by layout, and attention.
    pub same_bits: Vec<String>,
    /// Those that use the widest text throughout, with what differed.
    pub widest_only: Vec<String>,
    /// Largest difference of a mat-vec to the host, relative to the sum of the products' sizes.
    pub largest_difference: f64,
    /// How long it took.
    pub duration_ms: f64,
}

/// The name of a step's kernel, where there is a text for each number of columns.
pub(super) fn texts_of(step: &Step) -> Option<String> {
    match step {
        Step::Matvec { weight, .. } => Some(matvec_texts(weight.layout)),
        Step::Attention { .. } => Some(Kernel::Attention.name().to_owned()),
        _ => None,
    }
}

fn matvec_texts(layout: Layout) -> String {
    format!("matvec {}", layout.name())
}

impl GpuExecutor {
    /// Tests the mat-vec kernels of these layouts in every cut that was decided for, and attention of these shapes, or of one;
    /// to be called before plans are prepared, since it decides which widths they may use. Fails with `SelfTest` where even
    /// the widest mat-vec does not compute what the host does.
    pub async fn self_test(&self, layouts: &[Layout], shapes: &[AttentionShape]) -> Result<SelfTestReport> {
        let start = crate::runtime::now_ms();
        let mut largest_difference = 0.0f64;
        let mut found = Vec::new();
        for &layout in layouts {
            let mut narrow = None;
            for cut in self.cuts_of(layout) {
                let mark = self.mark();
                let outcome = self.with_cut(ShapeClass::of(layout, ROWS, COLS), cut, self.test_layout(layout)).await;
                self.release(mark);
                let (difference, differs) = outcome?;
                largest_difference = largest_difference.max(difference);
                narrow = narrow.or(differs);
            }
            found.push((matvec_texts(layout), narrow));
        }
        let mut narrow = None;
        for &shape in if shapes.is_empty() { &[SHAPE] } else { shapes } {
            let mark = self.mark();
            let differs = self.test_attention(shape).await;
            self.release(mark);
            narrow = narrow.or(differs?);
        }
        found.push((Kernel::Attention.name().to_owned(), narrow));
        let (mut same_bits, mut widest_only) = (Vec::new(), Vec::new());
        for (kernel, narrow) in found {
            match narrow {
                None => same_bits.push(kernel),
                Some(reason) => {
                    widest_only.push(format!("{kernel}: {reason}"));
                    self.use_widest_only(kernel, reason);
                }
            }
        }
        let duration_ms = crate::runtime::now_ms() - start;
        Ok(SelfTestReport { same_bits, widest_only, largest_difference, duration_ms })
    }

    /// Takes the widest text of a kernel, as a [`SelfTestReport`] names it, for every number of columns, in plans prepared
    /// from now on.
    pub fn use_widest_only(&self, kernel: String, reason: String) {
        self.widest_only.borrow_mut().insert(kernel, reason);
    }

    /// What differs in the attention of a position between passes of every width whose last column it is: their texts, and
    /// where their roots lie.
    async fn test_attention(&self, shape: AttentionShape) -> Result<Option<String>> {
        let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
        let shape = AttentionShape { capacity: POSITION as u32 + 1, window: 0, ..shape };
        let size = |factors: [u32; 3]| factors.into_iter().product::<u32>() as usize;
        let query: Vec<u32> = (0..size([1, heads + 2 * kv_heads, head_dim])).map(|i| unit(7, i).to_bits()).collect();
        let (halves, _) = random_matrix(Layout::F16);
        let filled = |words: &[u32]| {
            let buffer = self.alloc("self-test", UNIFORM_WORDS.max(words.len()))?;
            self.write(buffer, 0, words).map(|()| buffer)
        };
        let cache = |first: usize| {
            let words = halves.iter().cycle().skip(first).take(size([kv_heads, shape.capacity, head_dim / 2]));
            filled(&words.copied().collect::<Vec<_>>())
        };
        let (qkv, k_cache, v_cache) = (filled(&query.repeat(MAX_COLUMNS))?, cache(0)?, cache(1)?);
        let words = size([heads, shape.chunks(), head_dim + 4]);
        let partial = self.alloc("self-test", MAX_COLUMNS * words)?;
        let mut runs = Vec::new();
        // The wide ones first: the narrow ones leave their last columns alone.
        for bucket in COLUMN_BUCKETS.into_iter().rev() {
            let steps = vec![Step::Attention { qkv, k_cache, v_cache, partial, shape }];
            let plan = self.prepare(Plan { label: "self-test attention".to_owned(), bucket, steps })?;
            runs.push((plan, Params::chain(bucket, POSITION + 1 - bucket, 0)));
        }
        let ticket = self.submit(Submission { runs, ..Submission::default() })?;
        self.finish(ticket).await?;
        let bits = self.read(partial, 0, MAX_COLUMNS * words).await?;
        let last_of = |columns: usize| &bits[(columns - 1) * words..][..words];
        let differs = COLUMN_BUCKETS.into_iter().find(|&columns| last_of(columns) != last_of(MAX_COLUMNS));
        Ok(differs.map(|columns| format!("the last of {columns} columns is not that of {MAX_COLUMNS}")))
    }

    /// The difference of the widest kernel to the host, and what differs in a narrower one.
    async fn test_layout(&self, layout: Layout) -> Result<(f64, Option<String>)> {
        let (quants, scales) = random_matrix(layout);
        let mut x: Vec<f32> = (0..MAX_COLUMNS * COLS).map(|i| unit(2, i)).collect();
        let [quants_in, scales_in] = self.alloc_matrix("self-test", layout, ROWS, COLS)?;
        let (rows, cols) = (ROWS as u32, COLS as u32);
        let weight = MatrixPart { layout, quants: quants_in, scales: scales_in, first_row: 0, rows, cols };
        self.write_matrix(&weight, 0, &quants, &scales)?;
        let buffer = self.alloc("self-test x", UNIFORM_WORDS.max(MAX_COLUMNS * COLS))?;
        let vector = match self.arithmetic {
            Arithmetic::Q8 if layout.is_quantised() => Vector::Q8(buffer),
            _ => Vector::F32(buffer),
        };
        match vector {
            Vector::F32(_) => self.write(buffer, 0, bytemuck::cast_slice(&x))?,
            Vector::Q8(_) => self.write(buffer, 0, &quantised(&mut x))?,
        }

        let mut widest = Vec::new();
        let mut narrow = None;
        for bucket in COLUMN_BUCKETS.into_iter().rev() {
            let out = self.alloc("self-test out", MAX_COLUMNS * ROWS)?;
            let step = Step::Matvec {
                weight,
                x: vector,
                out,
                out_offset: 0,
                out_stride: ROWS as u32,
                add: false,
                columns: Columns::All,
            };
            let plan =
                self.prepare(Plan { label: format!("self-test {}", layout.name()), bucket, steps: vec![step] })?;
            let run = (plan, Params::chain(bucket, 0, 0));
            let ticket = self.submit(Submission { runs: vec![run], ..Submission::default() })?;
            self.finish(ticket).await?;
            let bits = self.read(out, 0, bucket * ROWS).await?;
            if bucket == MAX_COLUMNS {
                widest = bits;
            } else if let Some(i) = (0..bits.len()).find(|&i| bits[i] != widest[i]) {
                narrow.get_or_insert_with(|| {
                    let (one, other) = (f32::from_bits(bits[i]), f32::from_bits(widest[i]));
                    format!("{bucket} columns give {one:e} and {MAX_COLUMNS} columns {other:e} for column {}", i / ROWS)
                });
            }
        }
        let difference = self.compare(layout, &quants, &scales, &x, &widest)?;
        Ok((difference, narrow))
    }

    fn compare(&self, layout: Layout, quants: &[u32], scales: &[u32], x: &[f32], found: &[u32]) -> Result<f64> {
        let mut largest = 0.0f64;
        let weights = decode_all(layout, quants, scales);
        for (row, weights) in weights.chunks_exact(COLS).enumerate() {
            for column in 0..MAX_COLUMNS {
                let products = weights.iter().zip(&x[column * COLS..]).map(|(&w, &x)| f64::from(w) * f64::from(x));
                let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                let found = f64::from(f32::from_bits(found[column * ROWS + row]));
                let difference = (found - sum).abs() / size.max(f64::MIN_POSITIVE);
                if difference.is_nan() || difference > TOLERANCE {
                    return Err(Error::SelfTest {
                        kernel: matvec_texts(layout),
                        device: self.report.name.clone(),
                        reason: format!("row {row}, column {column}: found {found}, expected {sum}"),
                    });
                }
                largest = largest.max(difference);
            }
        }
        Ok(largest)
    }
}

/// The blocks of numbers, which become what the blocks stand for.
fn quantised(x: &mut [f32]) -> Vec<u32> {
    let mut words = vec![0; x.len() / BLOCK * Q8_WORDS];
    for (values, words) in x.as_chunks_mut::<BLOCK>().0.iter_mut().zip(words.chunks_exact_mut(Q8_WORDS)) {
        quantise(values, words);
        let bytes: &[i8] = bytemuck::cast_slice(&words[..8]);
        values.iter_mut().zip(bytes).for_each(|(value, &byte)| *value = f32::from_bits(words[8]) * f32::from(byte));
    }
    words
}

/// Well mixed bits, the same on every run.
fn bits(stream: u32, i: usize) -> u32 {
    pcg4d([i as u32, stream, 0x5eed, 1])[0]
}

/// A number from -1 to 1.
fn unit(stream: u32, i: usize) -> f32 {
    bits(stream, i) as i32 as f32 / 2_147_483_648.0
}

/// Random quants, and scales of a sensible size.
fn random_matrix(layout: Layout) -> (Vec<u32>, Vec<u32>) {
    use half::{bf16, f16};
    let small = |i: usize| u32::from(f16::from_f32(0.01 + 0.01 * unit(3, i)).to_bits());
    let quants = (0..layout.quant_words_for(ROWS * COLS))
        .map(|i| match layout {
            Layout::F16 => {
                u32::from(f16::from_f32(unit(4, i)).to_bits()) | u32::from(f16::from_f32(unit(5, i)).to_bits()) << 16
            }
            Layout::BF16 => {
                u32::from(bf16::from_f32(unit(4, i)).to_bits()) | u32::from(bf16::from_f32(unit(5, i)).to_bits()) << 16
            }
            Layout::F32 => unit(4, i).to_bits(),
            _ => bits(1, i),
        })
        .collect();
    let (words, _) = layout.scale_words();
    let scales = (0..layout.scale_words_for(ROWS * COLS))
        .map(|i| match (layout, i % words) {
            (Layout::Q8, _) | (Layout::Q6K, 0) => small(2 * i),
            (_, 0) => small(2 * i) | small(2 * i + 1) << 16,
            (Layout::Q6K, _) => bits(6, i),
            _ => bits(6, i) & 0x3f3f_3f3f,
        })
        .collect();
    (quants, scales)
}
