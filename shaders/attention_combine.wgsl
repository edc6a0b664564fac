// out[c][h*head_dim + i] = sum_j exp(m_j - m) values_j[i] / sum_j exp(m_j - m) sum_j,  m = max_j m_j, over chunks j
//
// Grid: x = head, y = column. Order of summation: chunks ascending, those that attention.wgsl filled.

#import params

const WORKGROUP: u32 = 64u;
const KV_CHUNK: u32 = 64u;
const LOWEST: f32 = -1e30;

struct Fixed {
    heads: u32,
    head_dim: u32,
    chunks: u32,
    window: u32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
// (columns, heads, chunks, head_dim + 2) weighted values, maximum, sum
@group(0) @binding(2) var<storage, read> partials: array<f32>;
// (columns, heads * head_dim)
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.y * fixed.heads + group.x;
    let end = position_of(group.y) + 1u;
    let start = select(0u, end - min(end, fixed.window), fixed.window != 0u);
    let stride = fixed.head_dim + 2u;
    let first = (row * fixed.chunks + start / KV_CHUNK) * stride;
    let last = (row * fixed.chunks + (end - 1u) / KV_CHUNK) * stride;

    var maximum = LOWEST;
    for (var at = first; at <= last; at += stride) {
        maximum = max(maximum, partials[at + fixed.head_dim]);
    }
    for (var i = thread; i < fixed.head_dim; i += WORKGROUP) {
        var value = 0.0;
        var sum = 0.0;
        for (var at = first; at <= last; at += stride) {
            let factor = exp(partials[at + fixed.head_dim] - maximum);
            value = fma(factor, partials[at + i], value);
            sum = fma(factor, partials[at + fixed.head_dim + 1u], sum);
        }
        out[row * fixed.head_dim + i] = value / sum;
    }
}
