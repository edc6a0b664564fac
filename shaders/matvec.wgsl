// out[c][out_at + r] = sum_k weight[r][k] * x[c][k], or += where add, for COLS columns at once
//
// Every weight is decoded once and used for all columns. LANES threads share a row, each thread works on ROWS rows;
// x is loaded once for the ROWS rows. LANES = 1 has no barrier and no shared memory (best where threads are emulated).
// Grid: workgroup g (folded over x and y) has rows g * ROWS * WORKGROUP/LANES and on.
// Sum of a row, the same for every column and every COLS: lane l takes blocks l, l + LANES, … in ascending order, inside
// a block the weights in ascending order by an fma each, then lanes are added by a fixed tree.

#import params
#import layouts

const WORKGROUP: u32 = {WORKGROUP}u;
const LANES: u32 = {LANES}u;
const ROWS: u32 = {ROWS}u;
const COLS: u32 = {COLS}u;

struct Fixed {
    rows: u32,
    blocks: u32,
    out_at: u32,
    out_stride: u32,
    add: u32,
    logits: u32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
// (columns, cols/4)
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
// (columns, out_stride)
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

fn store(row: u32, column: u32, value: f32) {
    let live = select(params.live_cols, params.logit_cols, fixed.logits != 0u);
    if row < fixed.rows && column < live {
        let at = column * fixed.out_stride + fixed.out_at + row;
        out[at] = select(value, out[at] + value, fixed.add != 0u);
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
    let first = ((group.y * groups.x + group.x) * (WORKGROUP / LANES) + thread / LANES) * ROWS;
    let blocks = fixed.blocks;
#repeat r ROWS
    let row{r} = min(first + {r}u, fixed.rows - 1u) * blocks;
#repeat c COLS
    var sum{r}_{c} = 0.0;
#end
#end
    for (var b = lane; b < blocks; b += LANES) {
#repeat r ROWS
        let block{r} = load_block(row{r} + b);
#end
        let x_at = b * 8u;
        let stride = blocks * 8u;
#repeat w 8
        {
#repeat r ROWS
            let w{r} = part{w}(block{r});
#end
#repeat c COLS
            let x{c} = x[{c}u * stride + x_at + {w}u];
#repeat r ROWS
            sum{r}_{c} = fma(w{r}.w, x{c}.w, fma(w{r}.z, x{c}.z, fma(w{r}.y, x{c}.y, fma(w{r}.x, x{c}.x, sum{r}_{c}))));
#end
#end
        }
#end
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
    store(first + {r}u, {c}u, sum{r}_{c});
#end
#end
#endif
}
