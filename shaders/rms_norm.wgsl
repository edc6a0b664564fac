// out[c] = x[c'] / sqrt(mean(x[c']^2) + eps) * weight, or out[c] += … where add
//
// c' is c, or logit_first + c where the step is about logits.
// Grid: one workgroup a column. Sum: thread t takes elements t, t + WORKGROUP, … in ascending order, then a fixed tree.

#import params

const WORKGROUP: u32 = 128u;

struct Fixed {
    width: u32,
    eps: f32,
    add: u32,
    logits: u32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
// (columns, width)
@group(0) @binding(2) var<storage, read> x: array<f32>;
// (width)
@group(0) @binding(3) var<storage, read> weight: array<f32>;
// (columns, width)
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

var<workgroup> sums: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let from_column = group.x + select(0u, params.logit_first, fixed.logits != 0u);
    let from_at = from_column * fixed.width;
    let to = group.x * fixed.width;
    var sum = 0.0;
    for (var i = thread; i < fixed.width; i += WORKGROUP) {
        let v = x[from_at + i];
        sum = fma(v, v, sum);
    }
    sums[thread] = sum;
    workgroupBarrier();
    for (var stride = WORKGROUP / 2u; stride > 0u; stride /= 2u) {
        if thread < stride {
            sums[thread] += sums[thread + stride];
        }
        workgroupBarrier();
    }
    let factor = 1.0 / sqrt(sums[0] / f32(fixed.width) + fixed.eps);
    for (var i = thread; i < fixed.width; i += WORKGROUP) {
        let v = x[from_at + i] * factor * weight[i];
        out[to + i] = select(v, out[to + i] + v, fixed.add != 0u);
    }
}
