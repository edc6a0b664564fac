//! Twin of `shaders/matvec.wgsl`.

use super::{Buffers, simd};
use crate::plan::{BufferId, Columns, MAX_COLUMNS, MatrixPart, Params};
use crate::runtime::parallel_chunks;
use crate::weights::decode::{Decode, VisitBlock};
use crate::weights::format::BLOCK;

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
    x: BufferId,
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
            x: &buffers.floats(x)[..count * cols],
            cols,
            count,
        };
        // (rows, count): a task owns whole rows; they are put in their columns afterwards.
        let mut products = vec![0.0f32; rows * count];
        parallel_chunks(&mut products, ROWS_PER_TASK * count, |task, products| {
            simd::matvec_rows(weight.layout, &rows_in, task * ROWS_PER_TASK, products);
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

/// Rows `first_row ..` of the product, `(rows, count)`. Every weight is decoded once for all columns; a column sums in
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
        let mut sums = Sums { x: input.x, cols: input.cols, count, lanes: [[0.0f32; 8]; MAX] };
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
