//! The inner loops, compiled for what the machine has. All give the same bits: the order of operations is in the source
//! and Rust never contracts or reorders floats.

#[cfg(not(target_arch = "x86_64"))]
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(not(target_arch = "x86_64"))]
use scalar as imp;
#[cfg(target_arch = "x86_64")]
use x86 as imp;

use crate::weights::decode;
use crate::weights::format::Layout;

/// Input of a run of rows.
pub(super) struct Rows<'a> {
    /// (rows, cols/32, words)
    pub(super) quants: &'a [u32],
    /// by layout
    pub(super) scales: &'a [u32],
    /// (count, cols)
    pub(super) x: &'a [f32],
    /// Weights in a row.
    pub(super) cols: usize,
    /// Columns.
    pub(super) count: usize,
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

/// `products[r][c]` of rows `first_row ..`.
pub(super) fn matvec_rows(layout: Layout, input: &Rows<'_>, first_row: usize, products: &mut [f32]) {
    use imp::rows;
    by_layout!(layout, rows(input, first_row, products));
}

/// What the loops were compiled for.
pub(super) fn name() -> &'static str {
    imp::name()
}
