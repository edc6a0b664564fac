//! Twin of `shaders/matvec.wgsl`.

use super::simd::{self, LANES, Simd};
use super::{Buffers, matrix};
use crate::plan::{BufferId, Columns, MAX_COLUMNS, MatrixPart, Params, Q8_WORDS, Vector};
use crate::runtime::parallel_chunks;
use crate::weights::decode::{Decode, VisitBlock};
use crate::weights::format::{BLOCK, Layout};

/// Rows that one task computes: enough work to be worth a task, and whole groups.
const ROWS_PER_TASK: usize = 32;

/// Where the products go.
pub(super) struct Target {
    /// (columns, stride) f32
    pub(super) out: BufferId,
    /// Row of `out` that row 0 of the matrix is.
    pub(super) offset: u32,
    /// Elements of a column of `out`.
    pub(super) stride: u32,
    /// Add instead of writing.
    pub(super) add: bool,
}

/// `out[c][offset + first_row + r] (+)= sum_k weight[r][k] * x[c][k]`
pub(super) fn matvec(
    weight: &MatrixPart,
    x: Vector,
    target: &Target,
    columns: Columns,
    params: &Params,
    buffers: &mut Buffers,
) {
    let count = match columns {
        Columns::All => params.live_cols,
        Columns::Logits => params.logit_cols,
    } as usize;
    let (rows, cols) = (weight.rows as usize, weight.cols as usize);
    buffers.with_floats(target.out, |out, buffers| {
        let words = &buffers.words(x.buffer())[..count * x.words(cols)];
        let (quants, scales) = (buffers.words(weight.quants), buffers.words(weight.scales));
        // (groups, count, LANES): a task owns whole groups of rows; they are put in their columns afterwards.
        let mut products = vec![0.0f32; rows.next_multiple_of(LANES) * count];
        match x {
            Vector::F32(_) => {
                let input = Rows { part: weight, quants, scales, x: bytemuck::cast_slice(words), count };
                parallel_chunks(&mut products, ROWS_PER_TASK * count, |task, products| {
                    simd::rows(&input, task * ROWS_PER_TASK, products);
                });
            }
            Vector::Q8(_) => {
                let panel = panel(words.as_chunks().0, count);
                let input = Rows { part: weight, quants, scales, x: &panel, count };
                parallel_chunks(&mut products, ROWS_PER_TASK * count, |task, products| {
                    simd::rows_q8(&input, task * ROWS_PER_TASK, products);
                });
            }
        }
        let first = (target.offset + weight.first_row) as usize;
        for column in 0..count {
            let out = &mut out[column * target.stride as usize + first..][..rows];
            for (group, out) in out.chunks_mut(LANES).enumerate() {
                let products = &products[(group * count + column) * LANES..];
                for (out, product) in out.iter_mut().zip(products) {
                    *out = if target.add { *out + product } else { *product };
                }
            }
        }
    });
}

/// A matrix and what it is multiplied with.
pub(super) struct Rows<'a, X> {
    pub(super) part: &'a MatrixPart,
    /// As `matrix.rs` lays them.
    pub(super) quants: &'a [u32],
    /// Likewise.
    pub(super) scales: &'a [u32],
    /// (count, cols) f32, or (cols/32, count) blocks
    pub(super) x: &'a [X],
    /// Columns.
    pub(super) count: usize,
}

/// Rows `first_row ..` of the product with floats, `(groups, count, LANES)`. Every weight is decoded once for all columns; a
/// column sums in 8 lanes, block by block, whatever `count` is.
#[inline(always)]
pub(super) fn rows<D: Decode>(input: &Rows<'_, f32>, first_row: usize, products: &mut [f32]) {
    // One column is the plain step: a count known to the compiler keeps its sums in registers. Same operations, same bits.
    if input.count == 1 {
        rows_of::<D, 1>(input, 1, first_row, products);
    } else {
        rows_of::<D, MAX_COLUMNS>(input, input.count, first_row, products);
    }
}

#[inline(always)]
fn rows_of<D: Decode, const MAX: usize>(input: &Rows<'_, f32>, count: usize, first_row: usize, products: &mut [f32]) {
    let (rows, cols) = (input.part.rows as usize, input.part.cols as usize);
    let blocks = cols / BLOCK;
    let mut group = [Vec::new(), Vec::new()];
    for at in 0..(products.len() / count).min(rows - first_row) {
        let row = first_row + at;
        let mut sums = Sums { x: input.x, cols, count, lanes: [[0.0f32; 8]; MAX] };
        if D::LAYOUT.is_quantised() {
            if at % LANES == 0 {
                matrix::group(input.part, row, [input.quants, input.scales], &mut group);
            }
            let [quants, scales] = &group;
            D::row(quants, scales, at % LANES * blocks, blocks, &mut sums);
        } else {
            D::row(input.quants, input.scales, row * blocks, blocks, &mut sums);
        }
        let products = &mut products[at / LANES * LANES * count + at % LANES..];
        for (product, l) in products.iter_mut().step_by(LANES).zip(&sums.lanes[..count]) {
            *product = ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
        }
    }
}

/// The sums of one row, by column and lane.
struct Sums<'a, const MAX: usize> {
    x: &'a [f32],
    cols: usize,
    count: usize,
    lanes: [[f32; 8]; MAX],
}

impl<const MAX: usize> VisitBlock for Sums<'_, MAX> {
    #[inline(always)]
    fn block(&mut self, index: usize, weights: &[f32; BLOCK]) {
        for (column, lanes) in self.lanes.iter_mut().enumerate().take(self.count) {
            let x = &self.x[column * self.cols + index * BLOCK..][..BLOCK];
            for (l, lane) in lanes.iter_mut().enumerate() {
                *lane += (weights[l] * x[l] + weights[8 + l] * x[8 + l])
                    + (weights[16 + l] * x[16 + l] + weights[24 + l] * x[24 + l]);
            }
        }
    }
}

/// A block of a quantised vector, as the inner loops take it.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Four elements each.
    pub(super) quads: [simd::Quad; 8],
    /// Sums of the bytes of both halves.
    pub(super) sums: [i32; 2],
    /// What a byte counts.
    pub(super) scale: f32,
    /// Sum of the elements.
    pub(super) sum: f32,
}

/// (cols/32, count): the columns of a block are neighbours.
pub(super) fn panel(x: &[[u32; Q8_WORDS]], count: usize) -> Vec<Block> {
    let blocks = x.len() / count.max(1);
    let mut panel = Vec::with_capacity(x.len());
    for at in 0..blocks {
        for column in 0..count {
            let words = &x[column * blocks + at];
            let bytes: &[[i8; BLOCK / 2]] = bytemuck::cast_slice(&words[..8]);
            panel.push(Block {
                quads: std::array::from_fn(|quad| simd::quad(words[quad])),
                sums: std::array::from_fn(|half| bytes[half].iter().map(|&byte| i32::from(byte)).sum()),
                scale: f32::from_bits(words[8]),
                sum: f32::from_bits(words[9]),
            });
        }
    }
    panel
}

/// Rows `first_row ..`, a multiple of `LANES`, of the product with quantised vectors, `(groups, count, LANES)`.
///
/// The sum of a block's products is an integer and exact; a lane adds them up block by block, whatever `count` is and on every
/// machine.
#[inline(always)]
pub(super) fn rows_q8<D: Decode, S: Simd>(input: &Rows<'_, Block>, first_row: usize, products: &mut [f32]) {
    assert!(D::LAYOUT.is_quantised(), "weights that are floats are multiplied with floats");
    let count = input.count;
    let [quant_words, scale_words] = matrix::row_words(input.part);
    for (group, products) in products.chunks_exact_mut(LANES * count).enumerate() {
        let (first, lanes) = matrix::group_of(input.part, first_row + group * LANES);
        let [quants, scales] = [(input.quants, quant_words), (input.scales, scale_words)]
            .map(|(from, words)| &from[first * words..][..lanes * words]);
        if lanes == LANES {
            group_q8::<D, S>([quants, scales], input, products);
        } else {
            let [quants, scales] = [quants, scales].map(|words| padded(words, lanes));
            group_q8::<D, S>([&quants, &scales], input, products);
        }
    }
}

/// A group of fewer lanes with the others zero.
#[cold]
fn padded(words: &[u32], lanes: usize) -> Vec<u32> {
    words.chunks_exact(lanes).flat_map(|words| (0..LANES).map(|lane| words.get(lane).copied().unwrap_or(0))).collect()
}

/// All columns of a group, some at a time: counts known to the compiler keep their sums in registers.
#[inline(always)]
fn group_q8<D: Decode, S: Simd>(weights: [&[u32]; 2], input: &Rows<'_, Block>, products: &mut [f32]) {
    let count = input.count;
    let mut first = 0;
    while count - first >= 4 {
        columns_q8::<D, S, 4>(weights, input.x, count, first, products);
        first += 4;
    }
    if count - first >= 2 {
        columns_q8::<D, S, 2>(weights, input.x, count, first, products);
        first += 2;
    }
    if count > first {
        columns_q8::<D, S, 1>(weights, input.x, count, first, products);
    }
}

/// `COUNT` columns from `first` of a group.
#[inline(always)]
fn columns_q8<D: Decode, S: Simd, const COUNT: usize>(
    [quants, scales]: [&[u32]; 2],
    panel: &[Block],
    count: usize,
    first: usize,
    products: &mut [f32],
) {
    let (halves, minimum) = (D::LAYOUT == Layout::Q6K, !matches!(D::LAYOUT, Layout::Q6K | Layout::Q8));
    let mut sums = [S::float(S::ZERO); COUNT];
    let mut offsets = sums;
    let words = quants.chunks_exact(D::LAYOUT.quant_words() * LANES);
    for (block, (quants, x)) in words.zip(panel.chunks_exact(count)).enumerate() {
        let [one, two] = factors::<D, S>(scales, block);
        let x: &[Block; COUNT] = x[first..].first_chunk().expect("a column a block");
        let mut low = [S::ZERO; COUNT];
        let mut high = low;
        dots::<D, S, COUNT, 0>(quants, x, &mut low);
        dots::<D, S, COUNT, 1>(quants, x, &mut high);
        for c in 0..COUNT {
            let scale = S::splat(x[c].scale);
            let factor = S::mul(one, scale);
            if halves {
                sums[c] = S::plus(sums[c], S::mul(factor, S::float(low[c])));
                sums[c] = S::plus(sums[c], S::mul(S::mul(two, scale), S::float(high[c])));
            } else {
                sums[c] = S::plus(sums[c], S::mul(factor, S::float(S::add(low[c], high[c]))));
            }
            if minimum {
                offsets[c] = S::plus(offsets[c], S::mul(two, S::splat(x[c].sum)));
            }
        }
    }
    for (c, products) in products.as_chunks_mut::<LANES>().0[first..][..COUNT].iter_mut().enumerate() {
        *products = S::store(if minimum { S::plus(sums[c], offsets[c]) } else { sums[c] });
    }
}

/// Sums of the products of half a block, one a column.
#[inline(always)]
fn dots<D: Decode, S: Simd, const COUNT: usize, const HALF: usize>(
    quants: &[u32],
    x: &[Block; COUNT],
    sums: &mut [S::Int; COUNT],
) {
    match D::LAYOUT {
        Layout::Q4 | Layout::Q4K => dots_of::<D, S, COUNT, HALF, 15>(quants, x, sums),
        Layout::Q5 | Layout::Q5K => dots_of::<D, S, COUNT, HALF, 31>(quants, x, sums),
        Layout::Q6K => dots_of::<D, S, COUNT, HALF, 63>(quants, x, sums),
        _ => dots_of::<D, S, COUNT, HALF, 128>(quants, x, sums),
    }
}

#[inline(always)]
fn dots_of<D: Decode, S: Simd, const COUNT: usize, const HALF: usize, const MOST: i32>(
    quants: &[u32],
    x: &[Block; COUNT],
    sums: &mut [S::Int; COUNT],
) {
    let weights = [
        S::weights::<MOST>(quad::<D, S>(quants, 4 * HALF)),
        S::weights::<MOST>(quad::<D, S>(quants, 4 * HALF + 1)),
        S::weights::<MOST>(quad::<D, S>(quants, 4 * HALF + 2)),
        S::weights::<MOST>(quad::<D, S>(quants, 4 * HALF + 3)),
    ];
    for (sum, x) in sums.iter_mut().zip(x) {
        *sum = S::dot::<MOST, HALF>(&weights, x);
        if D::LAYOUT == Layout::Q6K {
            *sum = S::add(*sum, S::int(-32 * x.sums[HALF]));
        }
    }
}

/// Quants `4 at .. 4 at + 4` of a block as bytes: signed in `Q8`, of `Q6K` 32 more than they count.
#[inline(always)]
fn quad<D: Decode, S: Simd>(quants: &[u32], at: usize) -> S::Int {
    let word = |word: usize| S::load(quants[word * LANES..].first_chunk().expect("a word a lane"));
    let at = at as u32;
    let nibbles = || S::and(S::shr(word((at % 4) as usize), 4 * (at / 4)), 0x0f0f_0f0f);
    match D::LAYOUT {
        Layout::Q4 | Layout::Q4K => nibbles(),
        Layout::Q5 | Layout::Q5K => S::or(nibbles(), S::shl(S::and(S::shr(word(4), at), 0x0101_0101), 4)),
        Layout::Q6K => {
            let high = S::and(S::shr(word(4 + (at / 4) as usize), 2 * (at % 4)), 0x0303_0303);
            S::or(nibbles(), S::shl(high, 4))
        }
        _ => word(at as usize),
    }
}

/// What [`Decode::factors`] gives, of a block of each row.
#[inline(always)]
fn factors<D: Decode, S: Simd>(scales: &[u32], block: usize) -> [S::Float; 2] {
    let (words, shared) = D::LAYOUT.scale_words();
    let scales = &scales[block / shared * words * LANES..][..words * LANES];
    let word = |word: usize| S::load(scales[word * LANES..].first_chunk().expect("a word a lane"));
    let halves = [S::low_half(word(0)), S::high_half(word(0))];
    if shared == 1 {
        return halves;
    }
    let at = block % shared;
    let pair = S::shr(word(1 + at / 2), 16 * (at as u32 % 2));
    if D::LAYOUT == Layout::Q6K {
        return [24, 16].map(|up| S::mul(halves[0], S::float(S::sar(S::shl(pair, up), 24))));
    }
    let [scale, minimum] = [pair, S::shr(pair, 8)].map(|byte| S::float(S::and(byte, 0xff)));
    [S::mul(halves[0], scale), S::mul(S::negate(halves[1]), minimum)]
}
