//! How matrices lie in the memory of the CPU executor: groups of [`LANES`] rows, word by word in turn.
//!
//! Word `i` of row `l` of a group stands at `i * lanes + l`, so that one vector register holds the same word of all rows of the
//! group and each lane of a product sums a row of its own: nothing is ever added across lanes. The last group has as many
//! lanes as there are rows left.

use super::Buffers;
use super::simd::LANES;
use crate::plan::MatrixPart;

/// First row and number of rows of the group that a row lies in.
pub(super) fn group_of(part: &MatrixPart, row: usize) -> (usize, usize) {
    let first = row / LANES * LANES;
    (first, LANES.min(part.rows as usize - first))
}

/// Words of quants and of scales in a row.
pub(super) fn row_words(part: &MatrixPart) -> [usize; 2] {
    let cols = part.cols as usize;
    [part.layout.quant_words_for(cols), part.layout.scale_words_for(cols)]
}

/// Writes rows from `row` of a part on, which come row after row.
pub(super) fn write(part: &MatrixPart, row: usize, quants: &[u32], scales: &[u32], buffers: &mut Buffers) {
    for ((buffer, words), from) in [part.quants, part.scales].into_iter().zip(row_words(part)).zip([quants, scales]) {
        let to = buffers.words_mut(buffer);
        for (at, from) in from.chunks_exact(words.max(1)).enumerate() {
            let (first, lanes) = group_of(part, row + at);
            let to = &mut to[first * words..][..lanes * words][row + at - first..];
            to.iter_mut().step_by(lanes).zip(from).for_each(|(to, from)| *to = *from);
        }
    }
}

/// The words of one row of a group of `lanes`, in order.
fn lane(group: &[u32], lanes: usize, lane: usize, to: &mut [u32]) {
    match group.as_chunks::<LANES>() {
        // A stride that the compiler knows.
        (whole, []) if lanes == LANES => to.iter_mut().zip(whole).for_each(|(to, of)| *to = of[lane]),
        _ => to.iter_mut().zip(group.iter().skip(lane).step_by(lanes)).for_each(|(to, from)| *to = *from),
    }
}

/// Quants and scales of one row, in order, as they are written.
pub(super) fn row(part: &MatrixPart, row: usize, quants: &[u32], scales: &[u32]) -> [Vec<u32>; 2] {
    let (first, lanes) = group_of(part, row);
    let [quant_words, scale_words] = row_words(part);
    [(quants, quant_words), (scales, scale_words)].map(|(from, words)| {
        let mut to = vec![0; words];
        lane(&from[first * words..][..lanes * words], lanes, row - first, &mut to);
        to
    })
}
