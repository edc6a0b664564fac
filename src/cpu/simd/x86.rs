//! AVX2 where the machine has it, chosen at run time.

use super::Rows;
use crate::weights::decode::Decode;

pub(super) fn rows<D: Decode>(input: &Rows<'_>, first_row: usize, products: &mut [f32]) {
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just found.
        unsafe { rows_avx2::<D>(input, first_row, products) }
    } else {
        crate::cpu::matvec::rows::<D>(input, first_row, products);
    }
}

#[target_feature(enable = "avx2")]
fn rows_avx2<D: Decode>(input: &Rows<'_>, first_row: usize, products: &mut [f32]) {
    crate::cpu::matvec::rows::<D>(input, first_row, products);
}

pub(super) fn name() -> &'static str {
    if std::arch::is_x86_feature_detected!("avx2") { "avx2" } else { "sse2" }
}
