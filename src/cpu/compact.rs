//! Twin of `shaders/compact.wgsl`.

use super::Buffers;
use crate::plan::{BufferId, Params, node_at};

/// `buffer[r][base + n] = buffer[r][base + node_at(n)]` along the path of column 0, from the root's child on.
pub(super) fn compact(buffer: BufferId, rows: u32, capacity: u32, words: u32, params: &Params, buffers: &mut Buffers) {
    let (capacity, words, base) = (capacity as usize, words as usize, params.base as usize);
    let path = params.ancestors[0];
    for row in buffers.words_mut(buffer).chunks_exact_mut(capacity * words).take(rows as usize) {
        for depth in 1..path.count_ones() {
            let from = (base + node_at(path, depth) as usize) * words;
            row.copy_within(from..from + words, (base + depth as usize) * words);
        }
    }
}
