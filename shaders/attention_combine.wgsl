// out[c][h*head_dim + i] = sum_j exp(m_j - m) values_j[i] / sum_j exp(m_j - m) sum_j,  m = max_j m_j, over chunks j
//
// Grid: x = head, y = column. Order of summation: chunks ascending, those that attention.wgsl filled.

#import params
#import seen

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

fn chunk_after(chunk: u32, hole: u32, resume: u32) -> u32 {
    return select(chunk + 1u, resume, chunk + 1u == hole);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.y * fixed.heads + group.x;
    let seen = seen_by(group.y, fixed.window);
    // Chunks first to hole - 1 and resume to last - 1.
    let first = seen.start / KV_CHUNK;
    let hole = select(first, (seen.hole + KV_CHUNK - 1u) / KV_CHUNK, seen.hole > seen.start);
    let resume = max(hole, seen.resume / KV_CHUNK);
    let last = (seen.end + KV_CHUNK - 1u) / KV_CHUNK;
    let start = select(first, resume, first == hole);
    let stride = fixed.head_dim + 2u;
    let row_at = row * fixed.chunks * stride;

    var maximum = LOWEST;
    for (var chunk = start; chunk < last; chunk = chunk_after(chunk, hole, resume)) {
        maximum = max(maximum, partials[row_at + chunk * stride + fixed.head_dim]);
    }
    for (var i = thread; i < fixed.head_dim; i += WORKGROUP) {
        var value = 0.0;
        var sum = 0.0;
        for (var chunk = start; chunk < last; chunk = chunk_after(chunk, hole, resume)) {
            let at = row_at + chunk * stride;
            let factor = exp(partials[at + fixed.head_dim] - maximum);
            value = fma(factor, partials[at + i], value);
            sum = fma(factor, partials[at + fixed.head_dim + 1u], sum);
        }
        out[row * fixed.head_dim + i] = value / sum;
    }
}
