// out[c][i] = gate(x[c][i]) * x[c][width + i]
//   SILU:      gate(v) = v / (1 + exp(-v))
//   GELU_TANH: gate(v) = 0.5 v (1 + tanh(sqrt(2/pi) (v + 0.044715 v^3)))
//
// Grid: x over elements, WORKGROUP a workgroup; y = column. No sums.

#import params

const WORKGROUP: u32 = 64u;

struct Fixed {
    width: u32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
// (columns, 2*width) gate, up
@group(0) @binding(2) var<storage, read> x: array<f32>;
// (columns, width)
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

fn gate(v: f32) -> f32 {
#ifdef SILU
    // Clamped where exp would overflow: the quotient is as good as 0 there.
    return v / (1.0 + exp(min(-v, 80.0)));
#else
    // Clamped where tanh is 1 to the last bit and some devices overflow.
    return 0.5 * v * (1.0 + tanh(clamp(0.7978845608 * (v + 0.044715 * v * v * v), -10.0, 10.0)));
#endif
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= fixed.width {
        return;
    }
    let at = id.y * 2u * fixed.width + id.x;
    out[id.y * fixed.width + id.x] = gate(x[at]) * x[at + fixed.width];
}
