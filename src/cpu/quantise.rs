//! Twin of `shaders/shared/quantise.wgsl`: how a column of floats is put where matrices take it from.

use crate::plan::{Q8_WORDS, Vector};
use crate::weights::decode::quantise;
use crate::weights::format::BLOCK;

/// Writes a column of floats into the buffer of a vector, (columns, words).
pub(super) fn put(out: Vector, words: &mut [u32], column: usize, values: &[f32]) {
    let words = &mut words[column * out.words(values.len())..][..out.words(values.len())];
    match out {
        Vector::F32(_) => bytemuck::cast_slice_mut(words).copy_from_slice(values),
        Vector::Q8(_) => {
            for (block, values) in words.chunks_exact_mut(Q8_WORDS).zip(values.as_chunks::<BLOCK>().0) {
                quantise(values, block);
            }
        }
    }
}
