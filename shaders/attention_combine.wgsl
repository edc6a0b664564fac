// out[c][h*head_dim + i] = sum_j exp(m_j - m) values_j[i] / sum_j exp(m_j - m) sum_j,  m = max_j m_j, over chunks j
//
// Grid: x = head, y = column; a thread merges four elements. With ALONE, where a barrier costs more than what it parts, a
// thread merges a block of 32 that it quantises: x over blocks, WORKGROUP a workgroup, y = column.
// Order of summation: chunks ascending, those that attention.wgsl filled.

#import params
#import seen
#import quantise

const WORKGROUP: u32 = 16u;
const KV_CHUNK: u32 = 64u;
const MAX_HEAD_DIM: u32 = 256u;
// Loads that are on their way at once.
const UNROLL: u32 = 4u;
const LOWEST: f32 = -1e30;

struct Fixed {
    heads: u32,
    head_dim: u32,
    chunks: u32,
    window: u32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
// (columns, heads, chunks, head_dim/4 + 1) weighted values, then maximum and sum
@group(0) @binding(2) var<storage, read> partials: array<vec4<f32>>;
#ifdef QUANTISED
// (columns, heads * head_dim/32, 3)
@group(0) @binding(3) var<storage, read_write> out: array<vec4<u32>>;
#ifdef ALONE
#else
// (head_dim/4)
var<workgroup> merged: array<vec4<f32>, MAX_HEAD_DIM / 4u>;
#endif
#else
// (columns, heads * head_dim/4)
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
#endif

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
#ifdef ALONE
    let blocks = fixed.head_dim / 32u;
    let item = group.x * WORKGROUP + thread;
    let head = item / blocks;
    if head >= fixed.heads {
        return;
    }
#else
    let head = group.x;
#endif
    let row = group.y * fixed.heads + head;
    let seen = seen_by(group.y, fixed.window);
    // Chunks first to hole - 1 and resume to last - 1.
    let first = seen.start / KV_CHUNK;
    let hole = select(first, (seen.hole + KV_CHUNK - 1u) / KV_CHUNK, seen.hole > seen.start);
    let resume = max(hole, seen.resume / KV_CHUNK);
    let last = (seen.end + KV_CHUNK - 1u) / KV_CHUNK;
    let before = hole - first;
    let chunks = before + last - resume;
    let vectors = fixed.head_dim / 4u;
    let row_at = row * fixed.chunks * (vectors + 1u);

    // Past the last chunk the last is read again, and counts nothing.
    var maximum = LOWEST;
    for (var n = 0u; n < chunks; n += UNROLL) {
#repeat u UNROLL
        let n{u} = min(n + {u}u, chunks - 1u);
        let whole{u} = row_at + select(resume + n{u} - before, first + n{u}, n{u} < before) * (vectors + 1u) + vectors;
        let maximum{u} = partials[whole{u}].x;
#end
#repeat u UNROLL
        maximum = max(maximum, maximum{u});
#end
    }
#ifdef ALONE
    let block = item % blocks;
    var v: array<vec4<f32>, 8>;
#repeat w 8
    v[{w}] = vec4<f32>(0.0);
#end
    var sum = 0.0;
    for (var n = 0u; n < chunks; n++) {
        let at = row_at + select(resume + n - before, first + n, n < before) * (vectors + 1u);
        let whole = partials[at + vectors].xy;
        let factor = exp(whole.x - maximum);
#repeat w 8
        v[{w}] = fma(vec4<f32>(factor), partials[at + block * 8u + {w}u], v[{w}]);
#end
        sum = fma(factor, whole.y, sum);
    }
#repeat w 8
    v[{w}] /= sum;
#end
    put_block(row * blocks + block, v);
#else
    for (var i = thread; i < vectors; i += WORKGROUP) {
        var value = vec4<f32>(0.0);
        var sum = 0.0;
        for (var n = 0u; n < chunks; n += UNROLL) {
#repeat u UNROLL
            let n{u} = min(n + {u}u, chunks - 1u);
            let at{u} = row_at + select(resume + n{u} - before, first + n{u}, n{u} < before) * (vectors + 1u);
            let whole{u} = partials[at{u} + vectors].xy;
            let partial{u} = partials[at{u} + i];
#end
#repeat u UNROLL
            let factor{u} = select(0.0, exp(whole{u}.x - maximum), n + {u}u < chunks);
            value = fma(vec4<f32>(factor{u}), partial{u}, value);
            sum = fma(factor{u}, whole{u}.y, sum);
#end
        }
#ifdef QUANTISED
        merged[i] = value / sum;
#else
        out[row * vectors + i] = value / sum;
#endif
    }
#ifdef QUANTISED
    workgroupBarrier();
    let blocks = fixed.head_dim / 32u;
    if thread < blocks {
        var v: array<vec4<f32>, 8>;
#repeat w 8
        v[{w}] = merged[thread * 8u + {w}u];
#end
        put_block(row * blocks + thread, v);
    }
#endif
#endif
}
