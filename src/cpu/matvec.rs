//! Twin of `shaders/matvec.wgsl`.

use super::{Buffers, simd};
use crate::plan::{BufferId, Columns, MAX_COLUMNS, MatrixPart, Params, Q8_WORDS, Vector};
use crate::runtime::parallel_chunks;
use crate::weights::decode::{Decode, VisitBlock};
use crate::weights::format::{BLOCK, Layout};

/// Rows that one task computes: enough work to be worth a task.
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
        let rows_in = simd::Rows {
            quants: buffers.words(weight.quants),
            scales: buffers.words(weight.scales),
            x: &buffers.words(x.buffer())[..count * x.words(cols)],
            cols,
            count,
        };
        let quantised = matches!(x, Vector::Q8(_));
        // (rows, count): a task owns whole rows; they are put in their columns afterwards.
        let mut products = vec![0.0f32; rows * count];
        parallel_chunks(&mut products, ROWS_PER_TASK * count, |task, products| {
            simd::matvec_rows(weight.layout, quantised, &rows_in, task * ROWS_PER_TASK, products);
        });
        let first = (target.offset + weight.first_row) as usize;
        for column in 0..count {
            let out = &mut out[column * target.stride as usize + first..][..rows];
            for (row, out) in out.iter_mut().enumerate() {
                let value = products[row * count + column];
                *out = if target.add { *out + value } else { value };
            }
        }
    });
}

/// Rows `first_row ..` of the product with floats, `(rows, count)`. Every weight is decoded once for all columns; a column sums in
/// 8 lanes, block by block, whatever `count` is.
#[inline(always)]
pub(super) fn rows<D: Decode>(input: &simd::Rows<'_>, first_row: usize, products: &mut [f32]) {
    // One column is the plain step: a count known to the compiler keeps its sums in registers. Same operations, same bits.
    if input.count == 1 {
        rows_of::<D, 1>(input, 1, first_row, products);
    } else {
        rows_of::<D, MAX_COLUMNS>(input, input.count, first_row, products);
    }
}

#[inline(always)]
fn rows_of<D: Decode, const MAX: usize>(input: &simd::Rows<'_>, count: usize, first_row: usize, products: &mut [f32]) {
    let blocks = input.cols / BLOCK;
    for (row, products) in products.chunks_exact_mut(count).enumerate() {
        let mut sums = Sums { x: bytemuck::cast_slice(input.x), cols: input.cols, count, lanes: [[0.0f32; 8]; MAX] };
        D::row(input.quants, input.scales, (first_row + row) * blocks, blocks, &mut sums);
        for (product, l) in products.iter_mut().zip(&sums.lanes) {
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

/// Rows `first_row ..` of the product with quantised vectors, `(rows, count)`. Sums of a block's products are integers and exact;
/// a column adds them up block by block, whatever `count` is.
#[inline(always)]
pub(super) fn rows_q8<D: Decode, S: simd::Dot>(input: &simd::Rows<'_>, first_row: usize, products: &mut [f32]) {
    let count = input.count;
    for (row, products) in products.chunks_exact_mut(count).enumerate() {
        // Counts known to the compiler keep their sums in registers; decoding a row again for the next eight is cheap.
        let mut first = 0;
        while count - first >= 8 {
            row_q8::<D, S, 8>(input, first, first_row + row, products);
            first += 8;
        }
        if count - first >= 4 {
            row_q8::<D, S, 4>(input, first, first_row + row, products);
            first += 4;
        }
        if count - first >= 2 {
            row_q8::<D, S, 2>(input, first, first_row + row, products);
            first += 2;
        }
        if count > first {
            row_q8::<D, S, 1>(input, first, first_row + row, products);
        }
    }
}

/// `COUNT` columns from `column` of one row.
#[inline(always)]
fn row_q8<D: Decode, S: simd::Dot, const COUNT: usize>(
    input: &simd::Rows<'_>,
    column: usize,
    row: usize,
    products: &mut [f32],
) {
    let blocks = input.cols / BLOCK;
    let x: [&[[u32; Q8_WORDS]]; COUNT] =
        std::array::from_fn(|c| &input.x.as_chunks::<Q8_WORDS>().0[(column + c) * blocks..][..blocks]);
    let first = row * blocks;
    let mut lanes = [S::ZERO; COUNT];
    let mut offsets = [0.0f32; COUNT];
    let mut done = 0;
    while done < blocks {
        let some = (blocks - done).min(8);
        let mut factors = [[0.0f32; 8]; 2];
        if some == 8 {
            factors = D::factors_of_eight(input.scales, first + done);
        } else {
            let [one, two] = &mut factors;
            for (j, (one, two)) in one.iter_mut().zip(two).enumerate().take(some) {
                (*one, *two) = D::factors(input.scales, first + done + j);
            }
        }
        for (j, (one, two)) in factors[0].into_iter().zip(factors[1]).enumerate().take(some) {
            let weights = S::weights(&D::bytes(input.quants, first + done + j));
            for ((lanes, offset), x) in lanes.iter_mut().zip(&mut offsets).zip(&x) {
                let x = &x[done + j];
                let scale = f32::from_bits(x[8]);
                let bytes = bytemuck::cast_ref(x.first_chunk::<8>().expect("12 words"));
                if D::LAYOUT == Layout::Q6K {
                    S::add::<true>(lanes, weights, bytes, [one * scale, two * scale]);
                } else {
                    S::add::<false>(lanes, weights, bytes, [one * scale; 2]);
                    *offset += two * f32::from_bits(x[9]);
                }
            }
        }
        done += 8;
    }
    for ((product, lanes), offset) in products[column..].iter_mut().zip(lanes).zip(offsets) {
        *product = S::sum(lanes) + offset;
    }
}
