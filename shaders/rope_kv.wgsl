// Per column and head: optional norm of query and key heads, rotation of both by the position p of the column,
//   (a, b) -> (a cos - b sin, a sin + b cos)  for each pair,
// then queries back into qkv, keys and values as packed halves into the cache at the slot of its node.
//
// Grid: x = column, y = head of qkv (queries, keys, values), one workgroup each.
// Sum of a norm: thread t takes pairs t, t + WORKGROUP, … in ascending order, then a fixed tree.

#import params

const WORKGROUP: u32 = 64u;
const MAX_HEAD_DIM: u32 = 256u;

struct Fixed {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    capacity: u32,
    // 1: elements i and i + head_dim/2 rotate together; 0: 2i and 2i + 1
    halves: u32,
    norm: u32,
    eps: f32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
// (columns, (heads + 2*kv_heads) * head_dim)
@group(0) @binding(2) var<storage, read_write> qkv: array<f32>;
// (kv_heads, capacity, head_dim/2) packed halves
@group(0) @binding(3) var<storage, read_write> k_cache: array<u32>;
// (kv_heads, capacity, head_dim/2) packed halves
@group(0) @binding(4) var<storage, read_write> v_cache: array<u32>;
// (capacity, head_dim/2) cosine, sine
@group(0) @binding(5) var<storage, read> rope: array<vec2<f32>>;
// (2, head_dim) norm weights of queries, keys; anything where there is no norm
@group(0) @binding(6) var<storage, read> qk_norm: array<f32>;

var<workgroup> sums: array<f32, WORKGROUP>;
var<workgroup> rotated: array<f32, MAX_HEAD_DIM>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let column = group.x;
    let head = group.y;
    let pairs = fixed.head_dim / 2u;
    let at = (column * (fixed.heads + 2u * fixed.kv_heads) + head) * fixed.head_dim;
    let slot = params.base + node_of(column);

    if head >= fixed.heads + fixed.kv_heads {
        let cache_at = ((head - fixed.heads - fixed.kv_heads) * fixed.capacity + slot) * pairs;
        for (var i = thread; i < pairs; i += WORKGROUP) {
            v_cache[cache_at + i] = pack2x16float(vec2<f32>(qkv[at + 2u * i], qkv[at + 2u * i + 1u]));
        }
        return;
    }

    let is_key = head >= fixed.heads;
    var factor = 1.0;
    if fixed.norm != 0u {
        var sum = 0.0;
        for (var i = thread; i < pairs; i += WORKGROUP) {
            let a = qkv[at + 2u * i];
            let b = qkv[at + 2u * i + 1u];
            sum = fma(b, b, fma(a, a, sum));
        }
        sums[thread] = sum;
        workgroupBarrier();
        for (var stride = WORKGROUP / 2u; stride > 0u; stride /= 2u) {
            if thread < stride {
                sums[thread] += sums[thread + stride];
            }
            workgroupBarrier();
        }
        factor = 1.0 / sqrt(sums[0] / f32(fixed.head_dim) + fixed.eps);
    }

    let turn_at = position_of(column) * pairs;
    let weight_at = select(0u, fixed.head_dim, is_key);
    for (var i = thread; i < pairs; i += WORKGROUP) {
        let first = select(2u * i, i, fixed.halves != 0u);
        let second = select(2u * i + 1u, i + pairs, fixed.halves != 0u);
        var a = qkv[at + first];
        var b = qkv[at + second];
        if fixed.norm != 0u {
            a *= factor * qk_norm[weight_at + first];
            b *= factor * qk_norm[weight_at + second];
        }
        let turn = rope[turn_at + i];
        rotated[first] = a * turn.x - b * turn.y;
        rotated[second] = a * turn.y + b * turn.x;
    }
    workgroupBarrier();
    if is_key {
        let cache_at = ((head - fixed.heads) * fixed.capacity + slot) * pairs;
        for (var i = thread; i < pairs; i += WORKGROUP) {
            k_cache[cache_at + i] = pack2x16float(vec2<f32>(rotated[2u * i], rotated[2u * i + 1u]));
        }
    } else {
        for (var i = thread; i < fixed.head_dim; i += WORKGROUP) {
            qkv[at + i] = rotated[i];
        }
    }
}
