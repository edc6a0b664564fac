//! The inner loops, compiled for what the machine has. Each gives the same bits on every machine that runs it and for any
//! number of columns: the order of operations is in the source and Rust never contracts or reorders floats.

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128"))))]
use scalar as imp;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use wasm as imp;
#[cfg(target_arch = "x86_64")]
use x86 as imp;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::weights::decode;
use crate::weights::format::{BLOCK, Layout};

/// Input of a run of rows.
pub(super) struct Rows<'a> {
    /// (rows, cols/32, words)
    pub(super) quants: &'a [u32],
    /// by layout
    pub(super) scales: &'a [u32],
    /// (count, cols) f32, or (count, cols/32, 12) of a quantised vector
    pub(super) x: &'a [u32],
    /// Weights in a row.
    pub(super) cols: usize,
    /// Columns.
    pub(super) count: usize,
}

/// Products of blocks of signed bytes. A block has two halves of 16 elements; its products are summed as integers, in as many
/// lanes as suit the machine. Everything is to be inlined into a function that is compiled for the instructions it uses.
pub(super) trait Dot {
    /// Sums of a row so far, by lane.
    type Lanes: Copy;
    /// A block of weights, made ready.
    type Weights: Copy;
    /// No sum yet.
    const ZERO: Self::Lanes;
    /// Makes a block ready.
    fn weights(bytes: &[i8; BLOCK]) -> Self::Weights;
    /// Adds a block whose halves count with these factors; without `TWO` both factors are the same.
    fn add<const TWO: bool>(lanes: &mut Self::Lanes, weights: Self::Weights, x: &[i8; BLOCK], factors: [f32; 2]);
    /// The sum of the lanes.
    fn sum(lanes: Self::Lanes) -> f32;
}

macro_rules! by_layout {
    ($layout:expr, $call:ident ( $($argument:expr),* )) => {
        match $layout {
            Layout::Q4 => $call::<decode::Q4>($($argument),*),
            Layout::Q5 => $call::<decode::Q5>($($argument),*),
            Layout::Q8 => $call::<decode::Q8>($($argument),*),
            Layout::Q4K => $call::<decode::Q4K>($($argument),*),
            Layout::Q5K => $call::<decode::Q5K>($($argument),*),
            Layout::Q6K => $call::<decode::Q6K>($($argument),*),
            Layout::F16 => $call::<decode::F16>($($argument),*),
            Layout::BF16 => $call::<decode::BF16>($($argument),*),
            Layout::F32 => $call::<decode::F32>($($argument),*),
        }
    };
}

/// Eight lanes, added by a fixed tree.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[inline(always)]
fn sum_of_eight(l: [f32; 8]) -> f32 {
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

/// `products[r][c]` of rows `first_row ..`, with floats or with quantised vectors.
pub(super) fn matvec_rows(layout: Layout, quantised: bool, input: &Rows<'_>, first_row: usize, products: &mut [f32]) {
    use imp::{rows, rows_q8};
    if quantised {
        by_layout!(layout, rows_q8(input, first_row, products));
    } else {
        by_layout!(layout, rows(input, first_row, products));
    }
}

/// One chunk of attention.
pub(super) fn attention_chunk(input: &super::attention::Input<'_>, kv_head: usize, chunk: usize, out: &mut [f32]) {
    imp::attention_chunk(input, kv_head, chunk, out);
}

/// What the loops were compiled for.
pub(super) fn name() -> &'static str {
    imp::name()
}
