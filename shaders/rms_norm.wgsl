// out[c] = x[c'] / sqrt(mean(x[c']^2) + eps) * weight, or out[c] += … where add
//
// c' is c, or logit_first + c where the step is about logits.
// Grid: one workgroup a column. Sum: thread t takes blocks of 32 elements t, t + WORKGROUP, …, in them sums of four lanes in
// ascending order, which are added, then a fixed tree over threads.

#import params
#import quantise

const WORKGROUP: u32 = 32u;

struct Fixed {
    width: u32,
    eps: f32,
    add: u32,
    logits: u32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
// (columns, width/4)
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
// (width/4)
@group(0) @binding(3) var<storage, read> weight: array<vec4<f32>>;
#ifdef QUANTISED
// (columns, width/32, 3)
@group(0) @binding(4) var<storage, read_write> out: array<vec4<u32>>;
#else
// (columns, width/4)
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;
#endif

var<workgroup> sums: array<f32, WORKGROUP>;

fn four_at(i: u32) -> vec4<f32> {
    return vec4<f32>(sums[4u * i], sums[4u * i + 1u], sums[4u * i + 2u], sums[4u * i + 3u]);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let from_column = group.x + select(0u, params.logit_first, fixed.logits != 0u);
    let blocks = fixed.width / 32u;
    var four = vec4<f32>(0.0);
    for (var b = thread; b < blocks; b += WORKGROUP) {
        let at = (from_column * blocks + b) * 8u;
#repeat w 8
        let x{w} = x[at + {w}u];
        four = fma(x{w}, x{w}, four);
#end
    }
    sums[thread] = (four.x + four.z) + (four.y + four.w);
    workgroupBarrier();
    // The tree, by each thread in registers: where threads are emulated a barrier costs more than all of its sums.
#repeat q 4
    let s{q} = four_at({q}u) + four_at({q}u + 4u);
#end
    let quarter = (s0 + s2) + (s1 + s3);
    let sum = (quarter.x + quarter.z) + (quarter.y + quarter.w);
    let factor = 1.0 / sqrt(sum / f32(fixed.width) + fixed.eps);
    for (var b = thread; b < blocks; b += WORKGROUP) {
        let at = (from_column * blocks + b) * 8u;
        var v: array<vec4<f32>, 8>;
#repeat w 8
        v[{w}] = x[at + {w}u] * factor * weight[b * 8u + {w}u];
#end
#ifdef QUANTISED
#else
        if fixed.add != 0u {
#repeat w 8
            v[{w}] += out[(group.x * blocks + b) * 8u + {w}u];
#end
        }
#endif
        put_block(group.x * blocks + b, v);
    }
}
