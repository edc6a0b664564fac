// Keyed noise; the same formulas as src/sampling.rs.

// pcg4d (Jarzynski and Olano, JCGT 9(3), 2020): 128 bits in, 128 well mixed bits out.
fn pcg4d(key: vec4<u32>) -> vec4<u32> {
    var v = key * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4<u32>(16u);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

// -ln(E), E = -ln(1 - v) exponential; its series where v is small, since there an argmax finds its winners.
fn gumbel(seed: vec2<u32>, position: u32, token: u32) -> f32 {
    let bits = pcg4d(vec4<u32>(token, position, seed)).x;
    let v = min((f32(bits) + 0.5) * (1.0 / 4294967296.0), 0.99999994);
    var exponential = -log(1.0 - v);
    if v < 0.1 {
        exponential = v * (1.0 + v * (1.0 / 2.0 + v * (1.0 / 3.0 + v * (1.0 / 4.0
            + v * (1.0 / 5.0 + v * (1.0 / 6.0 + v * (1.0 / 7.0)))))));
    }
    return -log(exponential);
}
