// Attention of one chunk of KV_CHUNK positions: with s_p = scale * q . k_p over the visible positions p of the chunk,
//   maximum = max s_p,  e_p = exp(s_p - maximum),  sum = sum_p e_p,  values = sum_p e_p v_p
//
// Positions run in path order: slot p for p < base, then the slots of the column's ancestors by depth. A column sees
// positions up to its own; a window leaves the last of them, a view the first and the last.
// Grid: x = chunk, y = head, z = column. A chunk without a visible position is skipped.
// Order of summation: a score by elements ascending; the sum of e_p by a fixed tree over the chunk; values by positions
// ascending. Nothing depends on the columns in flight nor on where a slot lies.

#import params
#import seen

const KV_CHUNK: u32 = 64u;
const MAX_HEAD_DIM: u32 = 256u;
const LOWEST: f32 = -1e30;

struct Fixed {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    capacity: u32,
    chunks: u32,
    window: u32,
    scale: f32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
// (columns, (heads + 2*kv_heads) * head_dim), queries rotated
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
// (kv_heads, capacity, head_dim/2) packed halves
@group(0) @binding(3) var<storage, read> k_cache: array<u32>;
// (kv_heads, capacity, head_dim/2) packed halves
@group(0) @binding(4) var<storage, read> v_cache: array<u32>;
// (columns, heads, chunks, head_dim + 2) weighted values, maximum, sum
@group(0) @binding(5) var<storage, read_write> partial_out: array<f32>;

var<workgroup> query: array<f32, MAX_HEAD_DIM>;
var<workgroup> tree: array<f32, KV_CHUNK>;
var<workgroup> weights: array<f32, KV_CHUNK>;
var<workgroup> slots: array<u32, KV_CHUNK>;

// A position counted from the first of a chunk, at most the chunk's end.
fn in_chunk(position: u32, chunk: u32) -> u32 {
    return min(max(position, chunk * KV_CHUNK) - chunk * KV_CHUNK, KV_CHUNK);
}

@compute @workgroup_size(KV_CHUNK)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let chunk = group.x;
    let head = group.y;
    let column = group.z;
    let seen = seen_by(column, fixed.window);
    // Visible positions of this chunk, counted from its first: first to hole - 1, resume to last - 1.
    let first = in_chunk(seen.start, chunk);
    let hole = in_chunk(seen.hole, chunk);
    let resume = in_chunk(seen.resume, chunk);
    let last = in_chunk(seen.end, chunk);
    if first >= hole && resume >= last {
        return;
    }

    let pairs = fixed.head_dim / 2u;
    let query_at = (column * (fixed.heads + 2u * fixed.kv_heads) + head) * fixed.head_dim;
    for (var i = thread; i < fixed.head_dim; i += KV_CHUNK) {
        query[i] = qkv[query_at + i];
    }
    let cache_at = head / (fixed.heads / fixed.kv_heads) * fixed.capacity;
    let visible = (thread >= first && thread < hole) || (thread >= resume && thread < last);
    var words_at = 0u;
    if visible {
        words_at = (cache_at + slot_of(column, chunk * KV_CHUNK + thread)) * pairs;
    }
    slots[thread] = words_at;
    workgroupBarrier();

    var score = LOWEST;
    if visible {
        var sum = 0.0;
        for (var i = 0u; i < pairs; i++) {
            let k = unpack2x16float(k_cache[words_at + i]);
            sum = fma(query[2u * i + 1u], k.y, fma(query[2u * i], k.x, sum));
        }
        score = sum * fixed.scale;
    }
    tree[thread] = score;
    workgroupBarrier();
    for (var stride = KV_CHUNK / 2u; stride > 0u; stride /= 2u) {
        if thread < stride {
            tree[thread] = max(tree[thread], tree[thread + stride]);
        }
        workgroupBarrier();
    }
    let maximum = tree[0];
    workgroupBarrier();
    let e = select(0.0, exp(score - maximum), visible);
    weights[thread] = e;
    tree[thread] = e;
    workgroupBarrier();
    for (var stride = KV_CHUNK / 2u; stride > 0u; stride /= 2u) {
        if thread < stride {
            tree[thread] += tree[thread + stride];
        }
        workgroupBarrier();
    }

    let out_at = ((column * fixed.heads + head) * fixed.chunks + chunk) * (fixed.head_dim + 2u);
    for (var i = thread; i < pairs; i += KV_CHUNK) {
        var sum = vec2<f32>(0.0);
        for (var j = first; j < hole; j++) {
            sum = fma(vec2<f32>(weights[j]), unpack2x16float(v_cache[slots[j] + i]), sum);
        }
        for (var j = resume; j < last; j++) {
            sum = fma(vec2<f32>(weights[j]), unpack2x16float(v_cache[slots[j] + i]), sum);
        }
        partial_out[out_at + 2u * i] = sum.x;
        partial_out[out_at + 2u * i + 1u] = sum.y;
    }
    if thread == 0u {
        partial_out[out_at + fixed.head_dim] = maximum;
        partial_out[out_at + fixed.head_dim + 1u] = tree[0];
    }
}
