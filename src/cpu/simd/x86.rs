//! AVX2 where the machine has it, chosen at run time.

use super::scalar::Scalar;
use super::{Dot, Rows, sum_of_eight};
use crate::cpu::attention::Input;
use crate::weights::decode::Decode;
use crate::weights::format::BLOCK;
use std::arch::x86_64::{
    __m256, __m256i, _mm_set1_ps, _mm256_abs_epi8, _mm256_add_ps, _mm256_cvtepi32_ps, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set_m128, _mm256_set1_epi16, _mm256_set1_ps,
    _mm256_sign_epi8,
};

pub(super) fn rows<D: Decode>(input: &Rows<'_>, first_row: usize, products: &mut [f32]) {
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just found.
        unsafe { rows_avx2::<D>(input, first_row, products) }
    } else {
        crate::cpu::matvec::rows::<D>(input, first_row, products);
    }
}

pub(super) fn rows_q8<D: Decode>(input: &Rows<'_>, first_row: usize, products: &mut [f32]) {
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just found.
        unsafe { rows_q8_avx2::<D>(input, first_row, products) }
    } else {
        crate::cpu::matvec::rows_q8::<D, Scalar>(input, first_row, products);
    }
}

#[target_feature(enable = "avx2")]
fn rows_avx2<D: Decode>(input: &Rows<'_>, first_row: usize, products: &mut [f32]) {
    crate::cpu::matvec::rows::<D>(input, first_row, products);
}

#[target_feature(enable = "avx2")]
fn rows_q8_avx2<D: Decode>(input: &Rows<'_>, first_row: usize, products: &mut [f32]) {
    crate::cpu::matvec::rows_q8::<D, Avx2>(input, first_row, products);
}

pub(super) fn attention_chunk(input: &Input<'_>, kv_head: usize, chunk: usize, out: &mut [f32]) {
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just found.
        unsafe { attention_chunk_avx2(input, kv_head, chunk, out) }
    } else {
        crate::cpu::attention::attention_chunk(input, kv_head, chunk, out);
    }
}

#[target_feature(enable = "avx2")]
fn attention_chunk_avx2(input: &Input<'_>, kv_head: usize, chunk: usize, out: &mut [f32]) {
    crate::cpu::attention::attention_chunk(input, kv_head, chunk, out);
}

pub(super) fn name() -> &'static str {
    if std::arch::is_x86_feature_detected!("avx2") { "avx2" } else { "sse2" }
}

/// To be used only in functions compiled for AVX2.
struct Avx2;

#[inline(always)]
fn load(bytes: &[i8; BLOCK]) -> __m256i {
    // SAFETY: 32 bytes are read; the caller is compiled for AVX2.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

impl Dot for Avx2 {
    type Lanes = __m256;
    /// The bytes and their magnitudes.
    type Weights = [__m256i; 2];
    // SAFETY: zeros are a value of it.
    const ZERO: __m256 = unsafe { std::mem::zeroed() };

    #[inline(always)]
    fn weights(bytes: &[i8; BLOCK]) -> [__m256i; 2] {
        let weights = load(bytes);
        // SAFETY: the caller is compiled for AVX2.
        [weights, unsafe { _mm256_abs_epi8(weights) }]
    }

    #[inline(always)]
    fn add<const TWO: bool>(
        lanes: &mut __m256,
        [weights, magnitudes]: [__m256i; 2],
        x: &[i8; BLOCK],
        [low, high]: [f32; 2],
    ) {
        // SAFETY: the caller is compiled for AVX2.
        unsafe {
            // The multiplication wants one factor without a sign; two products are at most 2 * 128 * 127, which fits.
            let pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(load(x), weights));
            let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
            let factors = if TWO { _mm256_set_m128(_mm_set1_ps(high), _mm_set1_ps(low)) } else { _mm256_set1_ps(low) };
            *lanes = _mm256_add_ps(*lanes, _mm256_mul_ps(factors, _mm256_cvtepi32_ps(fours)));
        }
    }

    #[inline(always)]
    fn sum(lanes: __m256) -> f32 {
        // SAFETY: both are eight floats, lane 0 first.
        sum_of_eight(unsafe { std::mem::transmute::<__m256, [f32; 8]>(lanes) })
    }
}
