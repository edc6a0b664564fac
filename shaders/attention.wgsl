// Attention of one chunk of KV_CHUNK positions: with s_p = scale * q . k_p over the visible positions p of the chunk,
//   maximum = max s_p,  e_p = exp(s_p - maximum),  sum = sum_p e_p,  values = sum_p e_p v_p
//
// Positions run in path order: slot p for p < base, then the slots of the column's ancestors by depth. A column sees
// positions up to its own; a window leaves the last of them, a view the first and the last.
// A row is a column and a head; rows of one KV head are together, so keys and values that they share are loaded once.
// Grid: x = chunk, y = KV head, z = ROWS rows. A chunk without a visible position is skipped.
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

// (KV_CHUNK, ROWS) scores, then e_p; a position that a row does not see has 0
var<workgroup> weights: array<f32, KV_CHUNK * ROWS>;
// (KV_CHUNK, MAX_COLUMNS) first words of the positions
var<workgroup> slots: array<u32, KV_CHUNK * MAX_COLUMNS>;

fn seen_at(position: u32, seen: Seen) -> bool {
    return (position >= seen.start && position < seen.hole) || (position >= seen.resume && position < seen.end);
}

// Whether a row sees any position of a chunk.
fn sees(seen: Seen, start: u32, end: u32) -> bool {
    return max(seen.start, start) < min(seen.hole, end) || max(seen.resume, start) < min(seen.end, end);
}

fn value_pair(weight: f32, word: u32, sum: vec2<f32>) -> vec2<f32> {
    return fma(vec2<f32>(weight), unpack2x16float(word), sum);
}

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
    // Positions of the chunk that any row may see, and those of them that all columns share.
    let count = max(end, start) - start;
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
                    let x = unpack2x16float(k{w}.x);
                    let y = unpack2x16float(k{w}.y);
                    let z = unpack2x16float(k{w}.z);
                    let t = unpack2x16float(k{w}.w);
                    sum = fma(a.w, y.y, fma(a.z, y.x, fma(a.y, x.y, fma(a.x, x.x, sum))));
                    sum = fma(b.w, t.y, fma(b.z, t.x, fma(b.y, z.y, fma(b.x, z.x, sum))));
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

    // A thread sums TILE rows of VECTORS vectors of values; UNROLL positions are on their way at once.
    let tiles = vectors / {VECTORS}u;
    for (var item = thread; item < (rows + {TILE}u - 1u) / {TILE}u * tiles; item += KV_CHUNK) {
        let tile_row = item / tiles * {TILE}u;
        let vector = item % tiles * {VECTORS}u;
#repeat r TILE
        let column{r} = min(first_row + tile_row + {r}u, first_row + rows - 1u) / per_kv;
#repeat v VECTORS
#repeat p 4
        var sum{r}_{v}_{p} = vec2<f32>(0.0);
#end
#end
#end
        var j = 0u;
        for (; j + {UNROLL}u <= shared_count; j += {UNROLL}u) {
            let at = (cache_at + start + j) * vectors + vector;
            let weight_at = j * ROWS + tile_row;
#repeat u UNROLL
#repeat v VECTORS
            let v{u}_{v} = v_cache[at + {u}u * vectors + {v}u];
#end
#repeat r TILE
            let weight{u}_{r} = weights[weight_at + {u}u * ROWS + {r}u];
#end
#end
#repeat u UNROLL
#repeat r TILE
#repeat v VECTORS
#repeat p 4
            sum{r}_{v}_{p} = value_pair(weight{u}_{r}, v{u}_{v}[{p}], sum{r}_{v}_{p});
#end
#end
#end
#end
        }
        for (; j < count; j++) {
            let weight_at = j * ROWS + tile_row;
#repeat r TILE
            let weight{r} = weights[weight_at + {r}u];
#end
#repeat r TILE
            {
                let at = slots[j * MAX_COLUMNS + column{r}] + vector;
#repeat v VECTORS
                let v{v} = v_cache[at + {v}u];
#repeat p 4
                sum{r}_{v}_{p} = value_pair(weight{r}, v{v}[{p}], sum{r}_{v}_{p});
#end
#end
            }
#end
        }
#repeat r TILE
        if tile_row + {r}u < rows {
            let row = first_row + tile_row + {r}u;
            let out_at = ((row / per_kv * fixed.heads + group.y * per_kv + row % per_kv) * fixed.chunks + group.x)
                * (fixed.head_dim / 4u + 1u) + 2u * vector;
#repeat v VECTORS
            partial_out[out_at + 2u * {v}u] = vec4<f32>(sum{r}_{v}_0, sum{r}_{v}_1);
            partial_out[out_at + 2u * {v}u + 1u] = vec4<f32>(sum{r}_{v}_2, sum{r}_{v}_3);
#end
        }
#end
    }
}
