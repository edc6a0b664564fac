//! Twin of `shaders/matvec.wgsl`.

use super::simd::{self, LANES, Simd};
use super::{Buffers, matrix};
use crate::plan::{BufferId, Columns, MAX_COLUMNS, MatrixPart, Params, Q8_WORDS, Vector};
use crate::runtime::parallel_chunks;
use crate::weights::decode::Decode;
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
        let products = match x {
            Vector::F32(_) if count == 1 => multiply(weight, bytemuck::cast_slice::<_, Floats>(words), 1, buffers),
            Vector::F32(_) => {
                multiply(weight, &panel(bytemuck::cast_slice(words), count, Floats::clone), count, buffers)
            }
            Vector::Q8(_) => multiply(weight, &panel(words.as_chunks().0, count, Block::of), count, buffers),
        };
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

/// `(groups, count, LANES)`: a task owns whole groups of rows; they are put in their columns afterwards.
fn multiply<X: Operand>(weight: &MatrixPart, x: &[X], count: usize, buffers: &Buffers) -> Vec<f32> {
    let (quants, scales) = (buffers.words(weight.quants), buffers.words(weight.scales));
    let input = Rows { part: weight, quants, scales, x, count };
    let mut products = vec![0.0f32; (weight.rows as usize).next_multiple_of(LANES) * count];
    parallel_chunks(&mut products, ROWS_PER_TASK * count, |task, products| {
        simd::rows(&input, task * ROWS_PER_TASK, products);
    });
    products
}

/// A matrix and what it is multiplied with.
pub(super) struct Rows<'a, X> {
    pub(super) part: &'a MatrixPart,
    /// As `matrix.rs` lays them.
    pub(super) quants: &'a [u32],
    /// Likewise.
    pub(super) scales: &'a [u32],
    /// (cols/32, count): the columns of a block are neighbours.
    pub(super) x: &'a [X],
    /// Columns.
    pub(super) count: usize,
}

/// `(cols/32, count)` of `(count, cols/32)`.
pub(super) fn panel<Y, X>(x: &[Y], count: usize, make: impl Fn(&Y) -> X) -> Vec<X> {
    let blocks = x.len() / count.max(1);
    let mut panel = Vec::with_capacity(x.len());
    for at in 0..blocks {
        panel.extend((0..count).map(|column| make(&x[column * blocks + at])));
    }
    panel
}

/// A block of a vector, as the inner loops take it.
pub(super) trait Operand: Sync + Sized {
    /// All columns of a group of [`LANES`] rows, a row a lane. Sums are added up block by block, in an order that depends
    /// neither on `count` nor on the machine.
    fn group<D: Decode, S: Simd>(weights: [&[u32]; 2], x: &[Self], count: usize, products: &mut [f32]);
}

/// Rows `first_row ..`, a multiple of `LANES`, of the product, `(groups, count, LANES)`.
#[inline(always)]
pub(super) fn rows<D: Decode, S: Simd, X: Operand>(input: &Rows<'_, X>, first_row: usize, products: &mut [f32]) {
    let count = input.count;
    let [quant_words, scale_words] = matrix::row_words(input.part);
    for (group, products) in products.chunks_exact_mut(LANES * count).enumerate() {
        let (first, lanes) = matrix::group_of(input.part, first_row + group * LANES);
        let [quants, scales] = [(input.quants, quant_words), (input.scales, scale_words)]
            .map(|(from, words)| &from[first * words..][..lanes * words]);
        if lanes == LANES {
            X::group::<D, S>([quants, scales], input.x, count, products);
        } else {
            let [quants, scales] = [quants, scales].map(|words| padded(words, lanes));
            X::group::<D, S>([&quants, &scales], input.x, count, products);
        }
    }
}

/// A group of fewer lanes with the others zero.
#[cold]
fn padded(words: &[u32], lanes: usize) -> Vec<u32> {
    words.chunks_exact(lanes).flat_map(|words| (0..LANES).map(|lane| words.get(lane).copied().unwrap_or(0))).collect()
}

/// A block of a vector of floats.
pub(super) type Floats = [f32; BLOCK];

/// Every weight is decoded once for all columns.
impl Operand for Floats {
    #[inline(always)]
    fn group<D: Decode, S: Simd>(weights: [&[u32]; 2], x: &[Floats], count: usize, products: &mut [f32]) {
        // One column is the plain step: a count known to the compiler keeps its sums in registers. Same operations, same bits.
        if count == 1 {
            columns_f32::<D, S, 1>(weights, x, 1, products);
        } else {
            columns_f32::<D, S, MAX_COLUMNS>(weights, x, count, products);
        }
    }
}

/// All columns of a group: a row has eight sums, of weights `l`, `l + 8`, `l + 16` and `l + 24` of every block.
#[inline(always)]
fn columns_f32<D: Decode, S: Simd, const MAX: usize>(
    [quants, scales]: [&[u32]; 2],
    x: &[Floats],
    count: usize,
    products: &mut [f32],
) {
    let zero = S::float(S::ZERO);
    let mut sums = [[zero; MAX]; 8];
    let words = quants.chunks_exact(D::LAYOUT.quant_words() * LANES);
    for (block, (quants, x)) in words.zip(x.chunks_exact(count)).enumerate() {
        let factors = if D::LAYOUT.is_quantised() { factors::<D, S>(scales, block) } else { [zero; 2] };
        let [s0, s1, s2, s3, s4, s5, s6, s7] = &mut sums;
        add_products::<D, S, 0>(quants, factors, x, s0);
        add_products::<D, S, 1>(quants, factors, x, s1);
        add_products::<D, S, 2>(quants, factors, x, s2);
        add_products::<D, S, 3>(quants, factors, x, s3);
        add_products::<D, S, 4>(quants, factors, x, s4);
        add_products::<D, S, 5>(quants, factors, x, s5);
        add_products::<D, S, 6>(quants, factors, x, s6);
        add_products::<D, S, 7>(quants, factors, x, s7);
    }
    let [s0, s1, s2, s3, s4, s5, s6, s7] = &sums;
    for (c, products) in products.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let even = S::plus(S::plus(s0[c], s4[c]), S::plus(s2[c], s6[c]));
        let odd = S::plus(S::plus(s1[c], s5[c]), S::plus(s3[c], s7[c]));
        *products = S::store(S::plus(even, odd));
    }
}

/// Products with weights `AT`, `AT + 8`, `AT + 16` and `AT + 24` of a block, added to a sum a column.
#[inline(always)]
fn add_products<D: Decode, S: Simd, const AT: usize>(
    quants: &[u32],
    factors: [S::Float; 2],
    x: &[Floats],
    sums: &mut [S::Float],
) {
    let weights = [
        weight::<D, S>(quants, factors, AT),
        weight::<D, S>(quants, factors, AT + 8),
        weight::<D, S>(quants, factors, AT + 16),
        weight::<D, S>(quants, factors, AT + 24),
    ];
    for (sum, x) in sums.iter_mut().zip(x) {
        let low = S::plus(S::mul(weights[0], S::splat(x[AT])), S::mul(weights[1], S::splat(x[AT + 8])));
        let high = S::plus(S::mul(weights[2], S::splat(x[AT + 16])), S::mul(weights[3], S::splat(x[AT + 24])));
        *sum = S::plus(*sum, S::plus(low, high));
    }
}

/// Weight `at` of a block of each row, as [`Decode::weights`] gives it.
#[inline(always)]
fn weight<D: Decode, S: Simd>(quants: &[u32], [one, two]: [S::Float; 2], at: usize) -> S::Float {
    let half = || word::<S>(quants, at / 2);
    let up = 8 * (at % 4) as u32;
    let byte = || S::and(S::shr(quad::<D, S>(quants, at / 4), up), 0xff);
    match D::LAYOUT {
        Layout::F32 => S::bits(word::<S>(quants, at)),
        Layout::F16 if at.is_multiple_of(2) => S::low_half(half()),
        Layout::F16 => S::high_half(half()),
        Layout::BF16 if at.is_multiple_of(2) => S::bits(S::shl(half(), 16)),
        Layout::BF16 => S::bits(S::and(half(), 0xffff_0000)),
        Layout::Q8 => S::mul(S::float(S::sar(S::shl(quad::<D, S>(quants, at / 4), 24 - up), 24)), one),
        Layout::Q6K => S::mul(S::float(S::add(byte(), S::int(-32))), if at < BLOCK / 2 { one } else { two }),
        Layout::Q4 | Layout::Q5 | Layout::Q4K | Layout::Q5K => S::plus(S::mul(S::float(byte()), one), two),
    }
}

/// A block of a quantised vector.
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

impl Block {
    pub(super) fn of(words: &[u32; Q8_WORDS]) -> Block {
        let bytes: &[[i8; BLOCK / 2]] = bytemuck::cast_slice(&words[..8]);
        Block {
            quads: std::array::from_fn(|quad| simd::quad(words[quad])),
            sums: std::array::from_fn(|half| bytes[half].iter().map(|&byte| i32::from(byte)).sum()),
            scale: f32::from_bits(words[8]),
            sum: f32::from_bits(words[9]),
        }
    }
}

/// The sum of a block's products is an integer and exact.
impl Operand for Block {
    /// Some columns at a time: counts known to the compiler keep their sums in registers.
    #[inline(always)]
    fn group<D: Decode, S: Simd>(weights: [&[u32]; 2], x: &[Block], count: usize, products: &mut [f32]) {
        let mut first = 0;
        while count - first >= 4 {
            columns_q8::<D, S, 4>(weights, x, count, first, products);
            first += 4;
        }
        if count - first >= 2 {
            columns_q8::<D, S, 2>(weights, x, count, first, products);
            first += 2;
        }
        if count > first {
            columns_q8::<D, S, 1>(weights, x, count, first, products);
        }
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
    assert!(D::LAYOUT.is_quantised(), "weights that are floats are multiplied with floats");
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
    let at = at as u32;
    let nibbles = || S::and(S::shr(word::<S>(quants, (at % 4) as usize), 4 * (at / 4)), 0x0f0f_0f0f);
    match D::LAYOUT {
        Layout::Q4 | Layout::Q4K => nibbles(),
        Layout::Q5 | Layout::Q5K => S::or(nibbles(), S::shl(S::and(S::shr(word::<S>(quants, 4), at), 0x0101_0101), 4)),
        Layout::Q6K => {
            let high = S::and(S::shr(word::<S>(quants, 4 + (at / 4) as usize), 2 * (at % 4)), 0x0303_0303);
            S::or(nibbles(), S::shl(high, 4))
        }
        _ => word::<S>(quants, at as usize),
    }
}

/// Word `at` of each row.
#[inline(always)]
fn word<S: Simd>(words: &[u32], at: usize) -> S::Int {
    S::load(words[at * LANES..].first_chunk().expect("a word a lane"))
}

/// What [`Decode::factors`] gives, of a block of each row.
#[inline(always)]
fn factors<D: Decode, S: Simd>(scales: &[u32], block: usize) -> [S::Float; 2] {
    let (words, shared) = D::LAYOUT.scale_words();
    let scales = &scales[block / shared * words * LANES..][..words * LANES];
    let halves = [S::low_half(word::<S>(scales, 0)), S::high_half(word::<S>(scales, 0))];
    if shared == 1 {
        return halves;
    }
    let at = block % shared;
    let pair = S::shr(word::<S>(scales, 1 + at / 2), 16 * (at as u32 % 2));
    if D::LAYOUT == Layout::Q6K {
        return [24, 16].map(|up| S::mul(halves[0], S::float(S::sar(S::shl(pair, up), 24))));
    }
    let [scale, minimum] = [pair, S::shr(pair, 8)].map(|byte| S::float(S::and(byte, 0xff)));
    [S::mul(halves[0], scale), S::mul(S::negate(halves[1]), minimum)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::decode::decode_all;

    #[test]
    fn floats_are_summed_in_eight_sums_a_row() {
        const COLS: usize = 512;
        let mut state = 5u32;
        // Halves from 2^-14 to 2, with signs, in both halves of a word.
        let mut words = |count: usize| -> Vec<u32> {
            let mut word = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state ^ state >> 15) & 0xbfff_bfff | 0x0400_0400
            };
            (0..count).map(|_| word()).collect()
        };
        for layout in Layout::ALL {
            let (quants, scales) = (words(layout.quant_words_for(COLS)), words(layout.scale_words_for(COLS)));
            let x: Vec<Floats> = words(COLS).chunks(BLOCK).map(|x| std::array::from_fn(|at| x[at] as f32)).collect();
            let mut sums = [0.0f32; 8];
            for (w, x) in decode_all(layout, &quants, &scales).as_chunks::<BLOCK>().0.iter().zip(&x) {
                for (l, sum) in sums.iter_mut().enumerate() {
                    let product = |at: usize| w[at + l] * x[at + l];
                    *sum += (product(0) + product(8)) + (product(16) + product(24));
                }
            }
            let s = sums;
            let expected = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
            let (quants_of, scales_of) = (BufferId(0), BufferId(0));
            let part =
                MatrixPart { layout, quants: quants_of, scales: scales_of, first_row: 0, rows: 1, cols: COLS as u32 };
            let mut products = [0.0; LANES];
            let input = Rows { part: &part, quants: &quants, scales: &scales, x: &x, count: 1 };
            simd::rows(&input, 0, &mut products);
            assert!(expected.is_finite() && expected != 0.0, "{layout:?}: {expected}");
            assert_eq!(products[0].to_bits(), expected.to_bits(), "{layout:?}");
        }
    }
}
