//! What the compiler makes of the target's own features: wasm's simd128, neon.

use super::Rows;
use crate::weights::decode::Decode;

pub(super) fn rows<D: Decode>(input: &Rows<'_>, first_row: usize, products: &mut [f32]) {
    crate::cpu::matvec::rows::<D>(input, first_row, products);
}

pub(super) fn name() -> &'static str {
    if cfg!(target_feature = "simd128") {
        "simd128"
    } else if cfg!(target_feature = "neon") {
        "neon"
    } else {
        "scalar"
    }
}
