// out[c][i] = gate(x[c][i]) * x[c][width + i]
//   SILU:      gate(v) = v / (1 + exp(-v))
//   GELU_TANH: gate(v) = 0.5 v (1 + tanh(sqrt(2/pi) (v + 0.044715 v^3)))
//
// Grid: x over blocks of 32 elements, WORKGROUP a workgroup; y = column. No sums.

#import params
#import quantise

const WORKGROUP: u32 = 16u;

struct Fixed {
    width: u32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
// (columns, 2, width/4) gate, up
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
#ifdef QUANTISED
// (columns, width/32, 3)
@group(0) @binding(3) var<storage, read_write> out: array<vec4<u32>>;
#else
// (columns, width/4)
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
#endif

fn gate(v: vec4<f32>) -> vec4<f32> {
#ifdef SILU
    // Clamped where exp would overflow: the quotient is as good as 0 there.
    return v / (1.0 + exp(min(-v, vec4<f32>(80.0))));
#else
    // Clamped where tanh is 1 to the last bit and some devices overflow.
    return 0.5 * v * (1.0 + tanh(clamp(0.7978845608 * (v + 0.044715 * v * v * v), vec4<f32>(-10.0), vec4<f32>(10.0))));
#endif
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let blocks = fixed.width / 32u;
    if id.x >= blocks {
        return;
    }
    let at = (id.y * 2u * blocks + id.x) * 8u;
    var v: array<vec4<f32>, 8>;
#repeat w 8
    v[{w}] = gate(x[at + {w}u]) * x[at + blocks * 8u + {w}u];
#end
    put_block(id.y * blocks + id.x, v);
}
