// How a kernel hands on a column: 32 neighbouring elements at a time, as floats, or with QUANTISED as signed bytes with
// their scale and sum (plan::Vector::Q8). The kernel has `out`, of vec4<f32> or vec4<u32>.

#ifdef QUANTISED
// A block of smaller elements is one of zeros: 127 over its largest might be infinite, and its sum no number.
const LEAST: f32 = 0x1p-100;

// Whole numbers as signed bytes.
fn bytes_of(v: vec4<f32>) -> u32 {
    let b = (bitcast<vec4<u32>>(vec4<i32>(v)) & vec4<u32>(0xffu)) * vec4<u32>(1u, 0x100u, 0x10000u, 0x1000000u);
    return (b.x | b.y) | (b.z | b.w);
}

fn put_block(block: u32, v: array<vec4<f32>, 8>) {
    var most = abs(v[0]);
#repeat w 8
    most = max(most, abs(v[{w}]));
#end
    let found = max(max(most.x, most.y), max(most.z, most.w));
    let largest = select(found, 0.0, found < LEAST);
    let inverse = select(0.0, 127.0 / largest, largest > 0.0);
    let scale = largest / 127.0;
#repeat w 8
    let q{w} = round(v[{w}] * inverse);
#end
    let four = ((q0 + q1) + (q2 + q3)) + ((q4 + q5) + (q6 + q7));
    let sum = scale * ((four.x + four.y) + (four.z + four.w));
    out[3u * block] = vec4<u32>(bytes_of(q0), bytes_of(q1), bytes_of(q2), bytes_of(q3));
    out[3u * block + 1u] = vec4<u32>(bytes_of(q4), bytes_of(q5), bytes_of(q6), bytes_of(q7));
    out[3u * block + 2u] = vec4<u32>(bitcast<u32>(scale), bitcast<u32>(sum), 0u, 0u);
}
#endif
#ifdef FLOATS
fn put_block(block: u32, v: array<vec4<f32>, 8>) {
#repeat w 8
    out[8u * block + {w}u] = v[{w}];
#end
}
#endif
