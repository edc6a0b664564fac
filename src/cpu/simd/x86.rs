//! What the machine has, chosen at run time: AVX-512 with VNNI, of which 256 bits are used, or AVX2.

use super::Simd;
use super::scalar::Scalar;
pub(in crate::cpu) use super::scalar::{LANES, Quad, halves_to_floats, quad};
use crate::cpu::attention::Input;
use crate::cpu::matvec::{self, Block, Operand, Rows};
use crate::weights::decode::Decode;
use std::arch::is_x86_feature_detected as has;
use std::arch::x86_64::{
    __m256, __m256i, _mm_cvtsi32_si128, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_add_ps,
    _mm256_and_si256, _mm256_castsi256_ps, _mm256_cvtepi32_ps, _mm256_dpbusd_epi32, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_or_si256, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_sign_epi8, _mm256_sll_epi32, _mm256_sra_epi32, _mm256_srl_epi32, _mm256_xor_ps,
    _mm256_xor_si256,
};

fn has_vnni() -> bool {
    has!("avx2") && has!("avx512f") && has!("avx512vl") && has!("avx512vnni")
}

pub(super) fn rows<D: Decode, X: Operand>(input: &Rows<'_, X>, first_row: usize, products: &mut [f32]) {
    if has_vnni() {
        // SAFETY: the features were just found.
        unsafe { rows_vnni::<D, X>(input, first_row, products) }
    } else if has!("avx2") {
        // SAFETY: the feature was just found.
        unsafe { rows_avx2::<D, X>(input, first_row, products) }
    } else {
        matvec::rows::<D, Scalar, X>(input, first_row, products);
    }
}

#[target_feature(enable = "avx2")]
fn rows_avx2<D: Decode, X: Operand>(input: &Rows<'_, X>, first_row: usize, products: &mut [f32]) {
    matvec::rows::<D, Avx2<false>, X>(input, first_row, products);
}

#[target_feature(enable = "avx2,avx512f,avx512vl,avx512vnni")]
fn rows_vnni<D: Decode, X: Operand>(input: &Rows<'_, X>, first_row: usize, products: &mut [f32]) {
    matvec::rows::<D, Avx2<true>, X>(input, first_row, products);
}

pub(in crate::cpu) fn attention_chunk(input: &Input<'_>, kv_head: usize, chunk: usize, out: &mut [f32]) {
    if has!("avx2") {
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

pub(in crate::cpu) fn name() -> &'static str {
    match (has_vnni(), has!("avx2")) {
        (true, _) => "avx512-vnni",
        (false, true) => "avx2",
        (false, false) => "sse2",
    }
}

/// To be used only in functions compiled for AVX2, and with `VNNI` for that too.
struct Avx2<const VNNI: bool>;

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type Int = __m256i;
    type Float = __m256;
    type Weights = __m256i;
    // SAFETY: zeros are a value of it.
    const ZERO: __m256i = unsafe { std::mem::zeroed() };

    #[inline(always)]
    fn load(words: &[u32; LANES]) -> __m256i {
        // SAFETY: 32 bytes are read; the caller is compiled for AVX2, here and below.
        unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
    }
    #[inline(always)]
    fn int(value: i32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_set1_epi32(value) }
    }
    #[inline(always)]
    fn add(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    fn and(a: __m256i, mask: u32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_and_si256(a, _mm256_set1_epi32(mask.cast_signed())) }
    }
    #[inline(always)]
    fn or(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    fn shl(a: __m256i, by: u32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(by.cast_signed())) }
    }
    #[inline(always)]
    fn shr(a: __m256i, by: u32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_srl_epi32(a, _mm_cvtsi32_si128(by.cast_signed())) }
    }
    #[inline(always)]
    fn sar(a: __m256i, by: u32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_sra_epi32(a, _mm_cvtsi32_si128(by.cast_signed())) }
    }
    #[inline(always)]
    fn float(a: __m256i) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn bits(a: __m256i) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_castsi256_ps(a) }
    }
    #[inline(always)]
    fn splat(value: f32) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    fn plus(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn negate(a: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_xor_ps(a, _mm256_set1_ps(-0.0)) }
    }
    #[inline(always)]
    fn store(a: __m256) -> [f32; LANES] {
        // SAFETY: both are eight floats, lane 0 first.
        unsafe { std::mem::transmute::<__m256, [f32; LANES]>(a) }
    }

    /// VNNI takes one factor without a sign: signed bytes get 128 more.
    #[inline(always)]
    fn weights<const MOST: i32>(bytes: __m256i) -> __m256i {
        match VNNI && MOST == 128 {
            // SAFETY: as above.
            true => unsafe { _mm256_xor_si256(bytes, _mm256_set1_epi32(0x8080_8080_u32.cast_signed())) },
            false => bytes,
        }
    }

    #[inline(always)]
    fn dot<const MOST: i32, const HALF: usize>(weights: &[__m256i; 4], x: &Block) -> __m256i {
        // SAFETY: as above, and for VNNI where it is used.
        unsafe {
            let mut sums = if VNNI && MOST == 128 { _mm256_set1_epi32(-128 * x.sums[HALF]) } else { Self::ZERO };
            let mut narrow = Self::ZERO;
            // So many sums of two products fit into 16 bits.
            let run = (i32::from(i16::MAX) / (2 * 127 * MOST)).clamp(1, 4);
            for (at, (&w, x)) in (1..).zip(weights.iter().zip(&x.quads[4 * HALF..])) {
                let x = _mm256_set1_epi32(x.cast_signed());
                if VNNI {
                    sums = _mm256_dpbusd_epi32(sums, w, x);
                    continue;
                }
                // The multiplication wants one factor without a sign.
                let pairs = match MOST {
                    128 => _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)),
                    _ => _mm256_maddubs_epi16(w, x),
                };
                narrow = _mm256_add_epi16(narrow, pairs);
                if at % run == 0 {
                    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1)));
                    narrow = Self::ZERO;
                }
            }
            sums
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, Decode, LANES, Operand, Scalar, has, has_vnni, rows_avx2, rows_vnni};
    use crate::cpu::matvec::{self, Floats, Rows};
    use crate::plan::{BufferId, MAX_COLUMNS, MatrixPart, Q8_WORDS};
    use crate::weights::decode;
    use crate::weights::format::BLOCK;

    const COLS: usize = 512;

    /// xorshift32
    fn word(state: &mut u32) -> u32 {
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        *state
    }

    /// Two halves from 2^-14 to 2, with signs.
    fn halves(state: &mut u32) -> u32 {
        word(state) & 0xbfff_bfff | 0x0400_0400
    }

    /// (columns, cols/32)
    fn blocks() -> Vec<Floats> {
        let state = &mut 11;
        let mut block = || std::array::from_fn(|_| word(state) as f32 / u32::MAX as f32 - 0.5);
        (0..MAX_COLUMNS * COLS / BLOCK).map(|_| block()).collect()
    }

    fn quantised(block: &Floats) -> Block {
        let mut words = [0; Q8_WORDS];
        decode::quantise(block, &mut words);
        Block::of(&words)
    }

    fn same<D: Decode, X: Operand>(make: impl Fn(&Floats) -> X) {
        let (rows, state) = (3 * LANES + 5, &mut 7);
        let part = MatrixPart {
            layout: D::LAYOUT,
            quants: BufferId(0),
            scales: BufferId(0),
            first_row: 0,
            rows: rows as u32,
            cols: COLS as u32,
        };
        // Of the layouts with shared scales halves are bytes of the right kind too, and of floats all words are numbers.
        let words = D::LAYOUT.quant_words_for(rows * COLS);
        let quants: Vec<u32> =
            (0..words).map(|_| if D::LAYOUT.is_quantised() { word(state) } else { halves(state) }).collect();
        let scales: Vec<u32> = (0..D::LAYOUT.scale_words_for(rows * COLS)).map(|_| halves(state)).collect();
        let x = blocks();
        // Bits by column.
        let products = |count: usize, run: &dyn Fn(&Rows<'_, X>, &mut [f32])| -> Vec<Vec<u32>> {
            let panel = matvec::panel(&x[..count * COLS / BLOCK], count, &make);
            let input = Rows { part: &part, quants: &quants, scales: &scales, x: &panel, count };
            let mut products = vec![0.0f32; rows.next_multiple_of(LANES) * count];
            run(&input, &mut products);
            let groups = products.chunks_exact(LANES).enumerate();
            let of = |column| groups.clone().filter(move |(at, _)| at % count == column).flat_map(|(_, group)| group);
            (0..count).map(|column| of(column).take(rows).map(|product| product.to_bits()).collect()).collect()
        };
        let expected = products(16, &|input, products| matvec::rows::<D, Scalar, X>(input, 0, products));
        assert!(expected.iter().flatten().all(|bits| *bits != 0), "products of something");
        for count in [1, 2, 3, 7, 16] {
            let found = products(count, &|input, products| matvec::rows::<D, Scalar, X>(input, 0, products));
            assert!(found == expected[..count], "{:?}, {count} columns", D::LAYOUT);
            if has!("avx2") {
                // SAFETY: the feature was just found.
                let found = products(count, &|input, products| unsafe { rows_avx2::<D, X>(input, 0, products) });
                assert!(found == expected[..count], "AVX2, {:?}, {count} columns", D::LAYOUT);
            }
            if has_vnni() {
                // SAFETY: the features were just found.
                let found = products(count, &|input, products| unsafe { rows_vnni::<D, X>(input, 0, products) });
                assert!(found == expected[..count], "VNNI, {:?}, {count} columns", D::LAYOUT);
            }
        }
    }

    fn same_with_both<D: Decode>() {
        same::<D, Block>(quantised);
        same::<D, Floats>(Floats::clone);
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits_at_any_width() {
        same_with_both::<decode::Q4>();
        same_with_both::<decode::Q5>();
        same_with_both::<decode::Q8>();
        same_with_both::<decode::Q4K>();
        same_with_both::<decode::Q5K>();
        same_with_both::<decode::Q6K>();
        same::<decode::F16, Floats>(Floats::clone);
        same::<decode::BF16, Floats>(Floats::clone);
        same::<decode::F32, Floats>(Floats::clone);
    }
}
