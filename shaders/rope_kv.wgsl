// Per column and head: with NORM a norm of query and key heads, rotation of both by the position p of the column,
//   (a, b) -> (a cos - b sin, a sin + b cos)  for each pair,
// then queries back into qkv, keys and values as packed halves into the cache at the slot of its node.
//
// Grid: x = column, y = head of qkv (queries, keys, values), one workgroup each; a thread has two pairs at a time.
// Sum of a norm: thread t takes words of two elements t, t + WORKGROUP, … in ascending order, then a fixed tree.

#import params

const WORKGROUP: u32 = 16u;

struct Fixed {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    capacity: u32,
    // 1: elements i and i + head_dim/2 rotate together; 0: 2i and 2i + 1
    halves: u32,
    eps: f32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
// (columns, (heads + 2*kv_heads) * head_dim/2)
@group(0) @binding(2) var<storage, read_write> qkv: array<vec2<f32>>;
// (kv_heads, capacity, head_dim/2) packed halves
@group(0) @binding(3) var<storage, read_write> k_cache: array<u32>;
// (kv_heads, capacity, head_dim/2) packed halves
@group(0) @binding(4) var<storage, read_write> v_cache: array<u32>;
// (capacity, head_dim/2) cosine, sine
@group(0) @binding(5) var<storage, read> rope: array<vec2<f32>>;
#ifdef NORM
// (2, head_dim/2) norm weights of queries, keys
@group(0) @binding(6) var<storage, read> qk_norm: array<vec2<f32>>;

var<workgroup> sums: array<f32, WORKGROUP>;
#endif

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let column = group.x;
    let head = group.y;
    let pairs = fixed.head_dim / 2u;
    let at = (column * (fixed.heads + 2u * fixed.kv_heads) + head) * pairs;
    let slot = params.base + node_of(column);

    if head >= fixed.heads + fixed.kv_heads {
        let cache_at = ((head - fixed.heads - fixed.kv_heads) * fixed.capacity + slot) * pairs;
        for (var i = thread; i < pairs; i += WORKGROUP) {
            v_cache[cache_at + i] = pack2x16float(qkv[at + i]);
        }
        return;
    }

    let is_key = head >= fixed.heads;
#ifdef NORM
    var sum = 0.0;
    for (var i = thread; i < pairs; i += WORKGROUP) {
        let v = qkv[at + i];
        sum = fma(v.y, v.y, fma(v.x, v.x, sum));
    }
    sums[thread] = sum;
    workgroupBarrier();
    for (var stride = WORKGROUP / 2u; stride > 0u; stride /= 2u) {
        if thread < stride {
            sums[thread] += sums[thread + stride];
        }
        workgroupBarrier();
    }
    let factor = 1.0 / sqrt(sums[0] / f32(fixed.head_dim) + fixed.eps);
    let weight_at = select(0u, pairs, is_key);
#endif

    let turn_at = position_of(column) * pairs;
    let cache_at = ((head - fixed.heads) * fixed.capacity + slot) * pairs;
    let halves = fixed.halves != 0u;
    // Words of two elements: i and i + pairs/2 hold two pairs across, or two neighbours hold one each.
    for (var i = thread; i < pairs / 2u; i += WORKGROUP) {
        let first = select(2u * i, i, halves);
        let second = select(2u * i + 1u, i + pairs / 2u, halves);
        var a = qkv[at + first];
        var b = qkv[at + second];
#ifdef NORM
        a *= factor * qk_norm[weight_at + first];
        b *= factor * qk_norm[weight_at + second];
#endif
        let turn0 = rope[turn_at + 2u * i];
        let turn1 = rope[turn_at + 2u * i + 1u];
        // Pairs (a.x, b.x) and (a.y, b.y), or (a.x, a.y) and (b.x, b.y).
        let p = select(a, vec2<f32>(a.x, b.x), halves);
        let q = select(b, vec2<f32>(a.y, b.y), halves);
        let r = vec2<f32>(p.x * turn0.x - p.y * turn0.y, p.x * turn0.y + p.y * turn0.x);
        let t = vec2<f32>(q.x * turn1.x - q.y * turn1.y, q.x * turn1.y + q.y * turn1.x);
        a = select(r, vec2<f32>(r.x, t.x), halves);
        b = select(t, vec2<f32>(r.y, t.y), halves);
        if is_key {
            k_cache[cache_at + first] = pack2x16float(a);
            k_cache[cache_at + second] = pack2x16float(b);
        } else {
            qkv[at + first] = a;
            qkv[at + second] = b;
        }
    }
}
