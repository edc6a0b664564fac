// The order of floats by their bits; `ordered_key` is that of src/sampling.rs.

const MINUS_INF: u32 = 0xff800000u;

// NaN as -inf, and -0 as 0, which it equals.
fn clean(bits: u32) -> u32 {
    let number = select(bits, MINUS_INF, (bits & 0x7fffffffu) > 0x7f800000u);
    return select(number, 0u, number == 0x80000000u);
}

// Bits of a float as an integer of the same order.
fn ordered_key(bits: u32) -> u32 {
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

// The float whose ordered key this is.
fn value_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}
