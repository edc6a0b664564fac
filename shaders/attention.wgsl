// Attention of one chunk of KV_CHUNK positions: with s_p = scale * q . k_p over the visible positions p of the chunk,
//   maximum = max s_p,  e_p = exp(s_p - maximum),  sum = sum_p e_p,  values = sum_p e_p v_p
//
// Positions run in path order: slot p for p < base, then the slots of the column's ancestors by depth. A column sees
// positions up to its own; a window leaves the last of them, a view the first and the last.
// A row is a column and a head; rows of one KV head are together, so keys and values that they share are loaded once.
// Grid: x = chunk, y = KV head, z = ROWS rows. With ALONE, where threads are emulated and what they share costs, a thread has
// a chunk of up to ROWS heads of one KV head in COLUMNS columns: columns, then such groups of heads, then KV heads, then
// chunks, WORKGROUP a workgroup, folded over x and y. A chunk without a visible position is skipped.
// Order of summation: a score by elements ascending; the sum of e_p and the values by positions ascending. Nothing depends on
// the columns in flight nor on where a slot lies.

#import params
#import seen

const KV_CHUNK: u32 = 64u;
const ROWS: u32 = {ROWS}u;
const MAX_COLUMNS: u32 = 16u;
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
#ifdef UNIFORM
// (columns, (heads + 2*kv_heads) * head_dim/4), queries rotated
@group(0) @binding(2) var<uniform> qkv: array<vec4<f32>, {UNIFORM}>;
#else
// (columns, (heads + 2*kv_heads) * head_dim/4), queries rotated
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>;
#endif
// (kv_heads, capacity, head_dim/8) vec4 of packed halves
@group(0) @binding(3) var<storage, read> k_cache: array<vec4<u32>>;
// (kv_heads, capacity, head_dim/8) vec4 of packed halves
@group(0) @binding(4) var<storage, read> v_cache: array<vec4<u32>>;
// (columns, heads, chunks, head_dim/4 + 1) weighted values, then maximum and sum
@group(0) @binding(5) var<storage, read_write> partial_out: array<vec4<f32>>;

fn seen_at(position: u32, seen: Seen) -> bool {
    return (position >= seen.start && position < seen.hole) || (position >= seen.resume && position < seen.end);
}

// Whether a row sees any position of a chunk.
fn sees(seen: Seen, start: u32, end: u32) -> bool {
    return max(seen.start, start) < min(seen.hole, end) || max(seen.resume, start) < min(seen.end, end);
}

#ifdef ALONE
// What queries, scores and weights are multiplied with, since `halves` are too small by 2^112: in parts, so that no query
// that is likely overflows.
const QUERY: f32 = 0x1p96;
const SCORE: f32 = 0x1p16;
const WEIGHT: f32 = 0x1p112;

// The two halves of a word times 2^-112: their exponents as those of floats. Some software takes long for unpack2x16float,
// and shifts lane by lane where it multiplies and converts four at once. A half below 2^-14 is then a subnormal float, for
// which software may take 0.
fn halves(word: u32) -> vec2<f32> {
    let low = ((word & 0x7fffu) * 0x2000u) | ((word & 0x8000u) * 0x10000u);
    let high = bitcast<u32>(i32(f32(bitcast<i32>(word & 0x7fff0000u)) * 0.125)) | (word & 0x80000000u);
    return vec2<f32>(bitcast<f32>(low), bitcast<f32>(high));
}
#else
fn halves(word: u32) -> vec2<f32> {
    return unpack2x16float(word);
}
#endif

// Eight elements of a query times those of a key, added to a score in their order.
fn score_of(a: vec4<f32>, b: vec4<f32>, key: vec4<u32>, sum: f32) -> f32 {
    let x = halves(key.x);
    let y = halves(key.y);
    let z = halves(key.z);
    let t = halves(key.w);
    let half = fma(a.w, y.y, fma(a.z, y.x, fma(a.y, x.y, fma(a.x, x.x, sum))));
    return fma(b.w, t.y, fma(b.z, t.x, fma(b.y, z.y, fma(b.x, z.x, half))));
}

fn value_pair(weight: f32, word: u32, sum: vec2<f32>) -> vec2<f32> {
    return fma(vec2<f32>(weight), halves(word), sum);
}

#ifdef ALONE
const WORKGROUP: u32 = 8u;
const COLUMNS: u32 = {COLUMNS}u;

// Whether a position on the path to a column is its slot.
fn in_order(column: u32) -> bool {
    let path = ancestors_of(column);
    return (path & (path + 1u)) == 0u;
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let item = (group.y * groups.x + group.x) * WORKGROUP + thread;
    let per_kv = fixed.heads / fixed.kv_heads;
    let tiles = (per_kv + ROWS - 1u) / ROWS;
    let spans = (params.live_cols + COLUMNS - 1u) / COLUMNS;
    let first = item % spans * COLUMNS;
    let tile = item / spans % tiles;
    let kv_head = item / spans / tiles % fixed.kv_heads;
    let chunk = item / spans / tiles / fixed.kv_heads;
    let start = chunk * KV_CHUNK;
    var any = false;
    var shared_end = start;
    var together = true;
#repeat c COLUMNS
    let column{c} = min(first + {c}u, params.live_cols - 1u);
    let seen{c} = seen_by(column{c}, fixed.window);
    any = any || sees(seen{c}, start, start + KV_CHUNK);
    shared_end = max(shared_end, seen{c}.end);
    together = together && in_order(column{c});
#end
    if !any {
        return;
    }
    together = together || start + KV_CHUNK <= params.base;
    let vectors = fixed.head_dim / 8u;
    let cache_at = kv_head * fixed.capacity;
    let last_head = (kv_head + 1u) * per_kv - 1u;
    let q_stride = (fixed.heads + 2u * fixed.kv_heads) * vectors * 2u;
    let stride = fixed.chunks * (vectors * 2u + 1u);
#repeat r ROWS
    let head{r} = min(kv_head * per_kv + tile * ROWS + {r}u, last_head);
#end
#repeat c COLUMNS
#repeat r ROWS
    let q_at{c}_{r} = column{c} * q_stride + head{r} * vectors * 2u;
    let out_at{c}_{r} = (column{c} * fixed.heads + head{r}) * stride + chunk * (vectors * 2u + 1u);
    // Scores, then e_p times WEIGHT; a position that is not seen has 0.
    var weights{c}_{r}: array<f32, KV_CHUNK>;
#end
#end
    var slots: array<u32, KV_CHUNK>;
    // Columns whose slots may differ take turns, and what a turn finds counts for its column.
    for (var turn = 0u; turn < select(COLUMNS, 1u, together); turn++) {
        let column = min(first + turn, params.live_cols - 1u);
        let end = select(max(start, seen_by(column, fixed.window).end), shared_end, together);
        let count = min(end - start, KV_CHUNK);
#repeat c COLUMNS
        let counts{c} = (together || turn == {c}u) && first + {c}u < params.live_cols;
#repeat r ROWS
        var maximum{c}_{r} = LOWEST;
        var sum{c}_{r} = 0.0;
#end
#end
        for (var j = 0u; j < count; j += {UNROLL}u) {
#repeat u UNROLL
            let position{u} = start + min(j + {u}u, count - 1u);
            let at{u} = (cache_at + select(slot_of(column, position{u}), position{u}, together)) * vectors;
            slots[j + {u}u] = at{u};
#repeat c COLUMNS
#repeat r ROWS
            var score{c}_{r}_{u} = 0.0;
#end
#end
#end
            for (var v = 0u; v < vectors; v++) {
#repeat c COLUMNS
#repeat r ROWS
                let a{c}_{r} = qkv[q_at{c}_{r} + 2u * v] * QUERY;
                let b{c}_{r} = qkv[q_at{c}_{r} + 2u * v + 1u] * QUERY;
#end
#end
#repeat u UNROLL
                let k{u} = k_cache[at{u} + v];
#repeat c COLUMNS
#repeat r ROWS
                score{c}_{r}_{u} = score_of(a{c}_{r}, b{c}_{r}, k{u}, score{c}_{r}_{u});
#end
#end
#end
            }
#repeat u UNROLL
#repeat c COLUMNS
            {
                let visible = seen_at(start + j + {u}u, seen{c});
#repeat r ROWS
                let seen_score{r} = select(LOWEST, score{c}_{r}_{u} * (fixed.scale * SCORE), visible);
                weights{c}_{r}[j + {u}u] = seen_score{r};
                maximum{c}_{r} = max(maximum{c}_{r}, seen_score{r});
#end
            }
#end
#end
        }
        for (var j = 0u; j < count; j += {UNROLL}u) {
#repeat u UNROLL
#repeat c COLUMNS
#repeat r ROWS
            {
                let score = weights{c}_{r}[j + {u}u];
                let e = select(0.0, exp(score - maximum{c}_{r}), score > LOWEST);
                weights{c}_{r}[j + {u}u] = e * WEIGHT;
                sum{c}_{r} += e;
            }
#end
#end
#end
        }
        for (var v = 0u; v < vectors; v += 2u) {
#repeat c COLUMNS
#repeat r ROWS
#repeat w 2
#repeat p 4
            var sum{c}_{r}_{w}_{p} = vec2<f32>(0.0);
#end
#end
#end
#end
            for (var j = 0u; j < count; j += 2u) {
#repeat u 2
                {
                    let at = slots[j + {u}u] + v;
#repeat w 2
                    let value{w} = v_cache[at + {w}u];
#end
#repeat c COLUMNS
#repeat r ROWS
                    let weight{c}_{r} = weights{c}_{r}[j + {u}u];
#repeat w 2
#repeat p 4
                    sum{c}_{r}_{w}_{p} = value_pair(weight{c}_{r}, value{w}[{p}], sum{c}_{r}_{w}_{p});
#end
#end
#end
#end
                }
#end
            }
#repeat c COLUMNS
            if counts{c} {
#repeat r ROWS
                if tile * ROWS + {r}u < per_kv {
#repeat w 2
                    partial_out[out_at{c}_{r} + 2u * (v + {w}u)] = vec4<f32>(sum{c}_{r}_{w}_0, sum{c}_{r}_{w}_1);
                    partial_out[out_at{c}_{r} + 2u * (v + {w}u) + 1u] = vec4<f32>(sum{c}_{r}_{w}_2, sum{c}_{r}_{w}_3);
#end
                }
#end
            }
#end
        }
#repeat c COLUMNS
        if counts{c} {
#repeat r ROWS
            if tile * ROWS + {r}u < per_kv {
                partial_out[out_at{c}_{r} + 2u * vectors] = vec4<f32>(maximum{c}_{r}, sum{c}_{r}, 0.0, 0.0);
            }
#end
        }
#end
    }
}
#else
// (KV_CHUNK, ROWS) scores, then e_p; a position that a row does not see has 0
var<workgroup> weights: array<f32, KV_CHUNK * ROWS>;
// (KV_CHUNK, MAX_COLUMNS) first words of the positions
var<workgroup> slots: array<u32, KV_CHUNK * MAX_COLUMNS>;

@compute @workgroup_size(KV_CHUNK)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let start = group.x * KV_CHUNK;
    let position = start + thread;
    let per_kv = fixed.heads / fixed.kv_heads;
    let first_row = group.z * ROWS;
    let rows = min(params.live_cols * per_kv - first_row, ROWS);
    let vectors = fixed.head_dim / 8u;
    let cache_at = group.y * fixed.capacity;
    let row_stride = fixed.heads + 2u * fixed.kv_heads;

    var any = false;
    var end = 0u;
    for (var column = first_row / per_kv; column <= (first_row + rows - 1u) / per_kv; column++) {
        let seen = seen_by(column, fixed.window);
        any = any || sees(seen, start, start + KV_CHUNK);
        end = max(end, min(seen.end, start + KV_CHUNK));
    }
    if !any {
        return;
    }
    // Positions of the chunk that any row may see, in whole steps, and those of them that all columns share.
    let count = (max(end, start) - start + {UNROLL}u - 1u) / {UNROLL}u * {UNROLL}u;
    let shared_count = min(max(params.base, start) - start, count);

    for (var part = 0u; part < vectors; part += 8u) {
        var held = 0xffffffffu;
#repeat w 8
        var k{w} = vec4<u32>(0u);
#end
        for (var row = 0u; row < rows; row++) {
            let column = (first_row + row) / per_kv;
            var score = LOWEST;
            if seen_at(position, seen_by(column, fixed.window)) {
                let slot = slot_of(column, position);
                let at = (cache_at + slot) * vectors;
                slots[thread * MAX_COLUMNS + column] = at;
                if slot != held {
                    held = slot;
#repeat w 8
                    k{w} = k_cache[at + min(part + {w}u, vectors - 1u)];
#end
                }
                let head = group.y * per_kv + (first_row + row) % per_kv;
                let q_at = (column * row_stride + head) * fixed.head_dim / 4u;
                var sum = 0.0;
                if part > 0u {
                    sum = weights[thread * ROWS + row];
                }
#repeat w 8
                if part + {w}u < vectors {
                    let a = qkv[q_at + 2u * (part + {w}u)];
                    let b = qkv[q_at + 2u * (part + {w}u) + 1u];
                    sum = score_of(a, b, k{w}, sum);
                }
#end
                score = sum;
                if part + 8u >= vectors {
                    score *= fixed.scale;
                }
            } else {
                slots[thread * MAX_COLUMNS + column] = cache_at * vectors;
            }
            weights[thread * ROWS + row] = score;
        }
    }
    workgroupBarrier();
    if thread < rows {
        var maximum = LOWEST;
        for (var j = 0u; j < count; j++) {
            maximum = max(maximum, weights[j * ROWS + thread]);
        }
        var sum = 0.0;
        for (var j = 0u; j < count; j++) {
            let score = weights[j * ROWS + thread];
            let e = select(0.0, exp(score - maximum), score > LOWEST);
            weights[j * ROWS + thread] = e;
            sum += e;
        }
        let row = first_row + thread;
        let out_at = ((row / per_kv * fixed.heads + group.y * per_kv + row % per_kv) * fixed.chunks + group.x)
            * (fixed.head_dim / 4u + 1u);
        partial_out[out_at + fixed.head_dim / 4u] = vec4<f32>(maximum, sum, 0.0, 0.0);
    }
    workgroupBarrier();

    // A thread sums a vector of eight values of a row; UNROLL positions are on their way at once.
    for (var item = thread; item < rows * vectors; item += KV_CHUNK) {
        let item_row = item / vectors;
        let vector = item % vectors;
        let column = (first_row + item_row) / per_kv;
#repeat p 4
        var sum{p} = vec2<f32>(0.0);
#end
        // One loop, wherever the root lies: only where values are found differs.
        for (var j = 0u; j < count; j += {UNROLL}u) {
#repeat u UNROLL
            var at{u} = (cache_at + start + j + {u}u) * vectors;
#end
            if j + {UNROLL}u > shared_count {
#repeat u UNROLL
                at{u} = slots[(j + {u}u) * MAX_COLUMNS + column];
#end
            }
#repeat u UNROLL
            let v{u} = v_cache[at{u} + vector];
            let weight{u} = weights[(j + {u}u) * ROWS + item_row];
#end
#repeat u UNROLL
#repeat p 4
            sum{p} = value_pair(weight{u}, v{u}[{p}], sum{p});
#end
#end
        }
        let row = first_row + item_row;
        let out_at = ((row / per_kv * fixed.heads + group.y * per_kv + row % per_kv) * fixed.chunks + group.x)
            * (fixed.head_dim / 4u + 1u) + 2u * vector;
        partial_out[out_at] = vec4<f32>(sum0, sum1);
        partial_out[out_at + 1u] = vec4<f32>(sum2, sum3);
    }
}
#endif
