//! Twin of `shaders/embed.wgsl`.

use super::{Buffers, matrix};
use crate::plan::{BufferId, MatrixPart, Params};
use crate::weights::decode::decode_block;
use crate::weights::format::BLOCK;

/// `out[c] = scale * weight[token]`, `history[slot] = token` where the token's row is in this part.
pub(super) fn embed(
    weight: &MatrixPart,
    history: BufferId,
    out: BufferId,
    scale: f32,
    params: &Params,
    buffers: &mut Buffers,
) {
    let width = weight.cols as usize;
    for column in 0..params.live_cols as usize {
        let token = buffers.words(BufferId::TOKENS)[(params.token_at + params.nodes[column]) as usize];
        if token < weight.first_row || token >= weight.first_row + weight.rows {
            continue;
        }
        let row = (token - weight.first_row) as usize;
        buffers.words_mut(history)[params.own_slot(column) as usize] = token;
        buffers.with_floats(out, |out, buffers| {
            let [quants, scales] = matrix::row(weight, row, buffers.words(weight.quants), buffers.words(weight.scales));
            let mut values = [0.0; BLOCK];
            for (block, out) in out[column * width..][..width].chunks_exact_mut(BLOCK).enumerate() {
                decode_block(weight.layout, &quants, &scales, block, &mut values);
                for (out, value) in out.iter_mut().zip(values) {
                    *out = scale * value;
                }
            }
        });
    }
}
