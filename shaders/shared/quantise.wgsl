// How a kernel hands on a column: 32 neighbouring elements at a time, as floats, or with QUANTISED as signed bytes with
// their scale and sum (plan::Vector::Q8). The kernel has `out`, of vec4<f32> or vec4<u32>.

#ifdef QUANTISED
fn bytes_of(v: vec4<f32>) -> u32 {
    return pack4xI8(vec4<i32>(round(v)));
}

fn sum_of_bytes(words: vec4<u32>) -> i32 {
    return dot4I8Packed(words.x, 0x01010101u) + dot4I8Packed(words.y, 0x01010101u)
        + dot4I8Packed(words.z, 0x01010101u) + dot4I8Packed(words.w, 0x01010101u);
}

fn put_block(block: u32, v: array<vec4<f32>, 8>) {
    var most = abs(v[0]);
#repeat w 8
    most = max(most, abs(v[{w}]));
#end
    let largest = max(max(most.x, most.y), max(most.z, most.w));
    let inverse = select(0.0, 127.0 / largest, largest > 0.0);
    let scale = largest / 127.0;
#repeat w 8
    let b{w} = bytes_of(v[{w}] * inverse);
#end
    let first = vec4<u32>(b0, b1, b2, b3);
    let second = vec4<u32>(b4, b5, b6, b7);
    let sum = scale * f32(sum_of_bytes(first) + sum_of_bytes(second));
    out[3u * block] = first;
    out[3u * block + 1u] = second;
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
