// out[c][out_at + r] = sum_k weight[r][k] * x[c][k], or += where add, for COLS columns at once
//
// Every weight is decoded once and used for all columns. LANES threads share a row, each thread works on ROWS rows;
// x is loaded once for the ROWS rows. LANES = 1 has no barrier and no shared memory (best where threads are emulated).
// Grid: workgroup g (folded over x and y) has rows g * ROWS * WORKGROUP/LANES and on. Of those a thread has ROWS neighbours, or
// with LANES = 1, where neighbouring threads read neighbouring rows, every WORKGROUP-th.
// Sum of a row, the same for every column and every COLS: lane l takes blocks l, l + LANES, … in ascending order, then lanes
// are added by a fixed tree. In a block, with floats: the weights in ascending order by an fma each. With QUANTISED the
// products of a block are integers and their sum is exact, however it is made; the block adds factor * scale * sum, and
// where the layout has an offset, offset * sum of x. It is made
// - by dot4I8Packed (DOT4);
// - of two products a multiplication (PAIRS), where weights have no sign and at most five bits: of (a | b << 16) * (d | c << 16)
//   the upper half is a * c + b * d, over as many weights as keep the lower half, a * d, from overflowing. For c and d to have
//   no sign, 128 is added to each and 128 times the sum of the weights taken off in the end;
// - of floats, which hold integers up to 2^24; with MASKS a weight stays where it stands in its word, a power of two more,
//   and meets as many powers less.

#import params
#import layouts

const WORKGROUP: u32 = {WORKGROUP}u;
const LANES: u32 = {LANES}u;
const ROWS: u32 = {ROWS}u;
const COLS: u32 = {COLS}u;
// From a thread's row to its next.
#ifdef REDUCE
const APART: u32 = 1u;
#else
const APART: u32 = WORKGROUP;
#endif
// Bytes 0 and 2 of a word.
const EVEN: u32 = 0xff00ffu;

struct Fixed {
    rows: u32,
    blocks: u32,
    out_at: u32,
    out_stride: u32,
    add: u32,
    logits: u32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
#ifdef UNIFORM
// as below
@group(0) @binding(4) var<uniform> x: array<vec4<{X}>, {UNIFORM}>;
#else
// (columns, cols/4) f32, or (columns, cols/32, 3): two of bytes, then scale and sum
@group(0) @binding(4) var<storage, read> x: array<vec4<{X}>>;
#endif
// (columns, out_stride)
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

fn store(row: u32, column: u32, value: f32) {
    let live = select(params.live_cols, params.logit_cols, fixed.logits != 0u);
    if row < fixed.rows && column < live {
        let at = column * fixed.out_stride + fixed.out_at + row;
        if fixed.add != 0u {
            out[at] += value;
        } else {
            out[at] = value;
        }
    }
}

#ifdef REDUCE
// (ROWS * COLS, WORKGROUP) sums of the threads
var<workgroup> sums: array<f32, ROWS * COLS * WORKGROUP>;
#endif

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let lane = thread % LANES;
    let blocks = fixed.blocks;
#ifdef REDUCE
    let first = ((group.y * groups.x + group.x) * (WORKGROUP / LANES) + thread / LANES) * ROWS;
#else
    let first = (group.y * groups.x + group.x) * ROWS * WORKGROUP + thread;
#endif
#repeat r ROWS
    let row{r} = min(first + {r}u * APART, fixed.rows - 1u);
#ifdef TEXTURE
    let texel{r} = first_texel(row{r}, blocks);
#endif
#repeat c COLS
    var sum{r}_{c} = 0.0;
#end
#end
    for (var b = lane; b < blocks; b += LANES) {
#ifdef TEXTURE
        var fours: array<vec4<u32>, ROWS / 4>;
#repeat q FOURS
        fours[{q}] = scales_of_four(min(first + 4u * {q}u * APART, fixed.rows - 1u), b, blocks);
#end
#repeat r ROWS
        let block{r} = block_at(texel{r} + b * GROUP * TEXELS, fours[{r} / 4][{r} % 4]);
#end
#else
#repeat r ROWS
        let block{r} = load_block(row{r}, b, blocks);
#end
#endif
#ifdef QUANTISED
#repeat c COLS
        let at{c} = ({c}u * blocks + b) * 3u;
        let scale{c} = bitcast<vec2<f32>>(x[at{c} + 2u].xy);
#repeat r ROWS
        var dot{r}_{c} = {ZERO};
#end
#end
#ifdef PAIRS
#repeat r ROWS
        var ones{r} = 0u;
#end
#endif
#repeat h 2
        {
#ifdef PAIRS
#repeat c COLS
            let x{c} = x[at{c} + {h}u] ^ vec4<u32>(0x80808080u);
            let swapped{c} = (x{c} << vec4<u32>(16u)) | (x{c} >> vec4<u32>(16u));
            let even{c} = swapped{c} & vec4<u32>(EVEN);
            let odd{c} = (swapped{c} >> vec4<u32>(8u)) & vec4<u32>(EVEN);
#end
#repeat r ROWS
            {
                let b = block{r};
                let w = vec4<u32>(bytes{h}_0(b), bytes{h}_1(b), bytes{h}_2(b), bytes{h}_3(b));
                let even = w & vec4<u32>(EVEN);
                let odd = (w >> vec4<u32>(8u)) & vec4<u32>(EVEN);
                let both = even + odd;
                ones{r} += both.x + both.y + both.z + both.w;
#repeat c COLS
                {
                    let p = even * even{c} + odd * odd{c};
#ifdef FIVE_BITS
                    dot{r}_{c} += ((p.x + p.y) >> 16u) + ((p.z + p.w) >> 16u);
#else
                    dot{r}_{c} += (p.x + p.y + p.z + p.w) >> 16u;
#endif
                }
#end
            }
#end
#else
#repeat c COLS
            let x{c} = x[at{c} + {h}u];
#ifdef MASKS
            var over{c} = 0.0;
#endif
#end
#repeat w 4
            {
#ifdef DOT4
#repeat r ROWS
                let w{r} = bytes{h}_{w}(block{r});
#repeat c COLS
                dot{r}_{c} += dot4I8Packed(w{r}, x{c}[{w}]);
#end
#end
#else
#repeat r ROWS
#ifdef MASKS
                let w{r} = raised{h}_{w}(block{r});
#else
                let w{r} = vec4<f32>(unpack4xI8(bytes{h}_{w}(block{r})));
#endif
#end
#repeat c COLS
#ifdef MASKS
                let v{c} = lowered{h}(x{c}[{w}]);
                over{c} += excess{h}(v{c});
#else
                let v{c} = vec4<f32>(unpack4xI8(x{c}[{w}]));
#endif
#repeat r ROWS
                dot{r}_{c} += dot(w{r}, v{c});
#end
#end
#endif
            }
#end
#endif
#ifdef MASKS
#repeat c COLS
#repeat r ROWS
            dot{r}_{c} -= over{c};
#end
#end
#endif
#ifdef TWO_SCALES
#repeat r ROWS
#repeat c COLS
            sum{r}_{c} = fma(factors{h}(block{r}).x * scale{c}.x, f32(dot{r}_{c}), sum{r}_{c});
            dot{r}_{c} -= dot{r}_{c};
#end
#end
#endif
        }
#end
#ifdef TWO_SCALES
#else
#repeat r ROWS
        let f{r} = factors0(block{r});
#ifdef PAIRS
        let added{r} = 128u * ((ones{r} & 0xffffu) + (ones{r} >> 16u));
#endif
#repeat c COLS
#ifdef OFFSET
        sum{r}_{c} = fma(f{r}.y, scale{c}.y, sum{r}_{c});
#endif
#ifdef PAIRS
        sum{r}_{c} = fma(f{r}.x * scale{c}.x, f32(i32(dot{r}_{c} - added{r})), sum{r}_{c});
#else
        sum{r}_{c} = fma(f{r}.x * scale{c}.x, f32(dot{r}_{c}), sum{r}_{c});
#endif
#end
#end
#endif
#else
        let x_at = b * 8u;
        let stride = blocks * 8u;
#repeat h 2
#repeat w 4
        {
#repeat r ROWS
            let w{r} = part{h}_{w}(block{r});
#end
#repeat c COLS
            let x{c} = x[{c}u * stride + x_at + 4u * {h}u + {w}u];
#repeat r ROWS
            sum{r}_{c} = fma(w{r}.w, x{c}.w, fma(w{r}.z, x{c}.z, fma(w{r}.y, x{c}.y, fma(w{r}.x, x{c}.x, sum{r}_{c}))));
#end
#end
        }
#end
#end
#endif
    }
#ifdef REDUCE
#repeat r ROWS
#repeat c COLS
    sums[({r}u * COLS + {c}u) * WORKGROUP + thread] = sum{r}_{c};
#end
#end
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            for (var i = thread; i < ROWS * COLS * WORKGROUP; i += WORKGROUP) {
                sums[i] += sums[i + half];
            }
        }
        workgroupBarrier();
    }
    for (var i = lane; i < ROWS * COLS; i += LANES) {
        store(first + i / COLS, i % COLS, sums[i * WORKGROUP + thread - lane]);
    }
#else
#repeat c COLS
#repeat r ROWS
    store(first + {r}u * APART, {c}u, sum{r}_{c});
#end
#end
#endif
}
