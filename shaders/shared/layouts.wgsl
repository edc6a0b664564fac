// Blocks of 32 weights, one layout chosen by its #define; src/weights/format.rs has the words and bits.
// `load_block(i)` reads the words of block `i` once, `part0` … `part7` decode four weights each: weights 4*w .. 4*w + 4.

const LOW_NIBBLES: u32 = 0x0f0f0f0fu;

#ifdef Q4
// (rows, cols/32) vec4: four words of nibbles
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
// (rows, cols/32) pack2x16float(scale, min)
@group(0) @binding(3) var<storage, read> scales: array<u32>;

struct Block { q: vec4<u32>, scale: f32, offset: f32 }

fn load_block(i: u32) -> Block {
    let s = unpack2x16float(scales[i]);
    return Block(quants[i], s.x, s.y);
}

#repeat w 8
fn part{w}(b: Block) -> vec4<f32> {
    let q = vec4<f32>(unpack4xU8((b.q[{w}u % 4u] >> (4u * ({w}u / 4u))) & LOW_NIBBLES));
    return b.scale * q + b.offset;
}
#end
#endif

#ifdef Q5
// (rows, cols/32, 5): four words of nibbles, one word of fifth bits
@group(0) @binding(2) var<storage, read> quants: array<u32>;
// (rows, cols/32) pack2x16float(scale, min)
@group(0) @binding(3) var<storage, read> scales: array<u32>;

struct Block { q: vec4<u32>, high: u32, scale: f32, offset: f32 }

fn load_block(i: u32) -> Block {
    let s = unpack2x16float(scales[i]);
    let at = i * 5u;
    return Block(vec4<u32>(quants[at], quants[at + 1u], quants[at + 2u], quants[at + 3u]), quants[at + 4u], s.x, s.y);
}

#repeat w 8
fn part{w}(b: Block) -> vec4<f32> {
    let low = (b.q[{w}u % 4u] >> (4u * ({w}u / 4u))) & LOW_NIBBLES;
    let high = ((b.high >> {w}u) & 0x01010101u) << 4u;
    return b.scale * vec4<f32>(unpack4xU8(low | high)) + b.offset;
}
#end
#endif

#ifdef Q8
// (rows, cols/32, 2) vec4: eight words of signed bytes
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
// (rows, cols/32) pack2x16float(scale, 0)
@group(0) @binding(3) var<storage, read> scales: array<u32>;

struct Block { q0: vec4<u32>, q1: vec4<u32>, scale: f32 }

fn load_block(i: u32) -> Block {
    return Block(quants[2u * i], quants[2u * i + 1u], unpack2x16float(scales[i]).x);
}

#repeat w 4
fn part{w}(b: Block) -> vec4<f32> {
    return b.scale * vec4<f32>(unpack4xI8(b.q0[{w}]));
}
#end
fn part4(b: Block) -> vec4<f32> { return b.scale * vec4<f32>(unpack4xI8(b.q1[0])); }
fn part5(b: Block) -> vec4<f32> { return b.scale * vec4<f32>(unpack4xI8(b.q1[1])); }
fn part6(b: Block) -> vec4<f32> { return b.scale * vec4<f32>(unpack4xI8(b.q1[2])); }
fn part7(b: Block) -> vec4<f32> { return b.scale * vec4<f32>(unpack4xI8(b.q1[3])); }
#endif

#ifdef Q4K
// (rows, cols/32) vec4: four words of nibbles
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
// (rows, cols/256, 5): pack2x16float(d, dmin), then a half-word `scale | min << 8` a block
@group(0) @binding(3) var<storage, read> scales: array<u32>;

struct Block { q: vec4<u32>, scale: f32, offset: f32 }

fn load_block(i: u32) -> Block {
    let at = i / 8u * 5u;
    let d = unpack2x16float(scales[at]);
    let s = scales[at + 1u + i % 8u / 2u] >> (16u * (i % 2u));
    return Block(quants[i], d.x * f32(s & 0xffu), -(d.y * f32((s >> 8u) & 0xffu)));
}

#repeat w 8
fn part{w}(b: Block) -> vec4<f32> {
    let q = vec4<f32>(unpack4xU8((b.q[{w}u % 4u] >> (4u * ({w}u / 4u))) & LOW_NIBBLES));
    return b.scale * q + b.offset;
}
#end
#endif

#ifdef Q5K
// (rows, cols/32, 5): four words of nibbles, one word of fifth bits
@group(0) @binding(2) var<storage, read> quants: array<u32>;
// (rows, cols/256, 5): pack2x16float(d, dmin), then a half-word `scale | min << 8` a block
@group(0) @binding(3) var<storage, read> scales: array<u32>;

struct Block { q: vec4<u32>, high: u32, scale: f32, offset: f32 }

fn load_block(i: u32) -> Block {
    let s_at = i / 8u * 5u;
    let d = unpack2x16float(scales[s_at]);
    let s = scales[s_at + 1u + i % 8u / 2u] >> (16u * (i % 2u));
    let at = i * 5u;
    let q = vec4<u32>(quants[at], quants[at + 1u], quants[at + 2u], quants[at + 3u]);
    return Block(q, quants[at + 4u], d.x * f32(s & 0xffu), -(d.y * f32((s >> 8u) & 0xffu)));
}

#repeat w 8
fn part{w}(b: Block) -> vec4<f32> {
    let low = (b.q[{w}u % 4u] >> (4u * ({w}u / 4u))) & LOW_NIBBLES;
    let high = ((b.high >> {w}u) & 0x01010101u) << 4u;
    return b.scale * vec4<f32>(unpack4xU8(low | high)) + b.offset;
}
#end
#endif

#ifdef Q6K
// (rows, cols/32, 3) vec2: four words of nibbles, two words of two high bits
@group(0) @binding(2) var<storage, read> quants: array<vec2<u32>>;
// (rows, cols/256, 5): pack2x16float(d, 0), then a signed byte for each 16 weights
@group(0) @binding(3) var<storage, read> scales: array<u32>;

struct Block { q: vec4<u32>, high: vec2<u32>, scales: vec2<f32> }

fn load_block(i: u32) -> Block {
    let s_at = i / 8u * 5u;
    let d = unpack2x16float(scales[s_at]).x;
    let bytes = unpack4xI8(scales[s_at + 1u + i % 8u / 2u] >> (16u * (i % 2u)));
    let at = i * 3u;
    return Block(vec4<u32>(quants[at], quants[at + 1u]), quants[at + 2u], d * vec2<f32>(bytes.xy));
}

#repeat w 8
fn part{w}(b: Block) -> vec4<f32> {
    let low = (b.q[{w}u % 4u] >> (4u * ({w}u / 4u))) & LOW_NIBBLES;
    let high = ((b.high[{w}u / 4u] >> (2u * ({w}u % 4u))) & 0x03030303u) << 4u;
    return b.scales[{w}u / 4u] * (vec4<f32>(unpack4xU8(low | high)) - 32.0);
}
#end
#endif

#ifdef F16
// (rows, cols/32, 4) vec4: sixteen words of two halves
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
// (1) unused
@group(0) @binding(3) var<storage, read> scales: array<u32>;

struct Block { q0: vec4<u32>, q1: vec4<u32>, q2: vec4<u32>, q3: vec4<u32> }

fn load_block(i: u32) -> Block {
    return Block(quants[4u * i], quants[4u * i + 1u], quants[4u * i + 2u], quants[4u * i + 3u]);
}

fn halves(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
#endif

#ifdef BF16
// (rows, cols/32, 4) vec4: sixteen words of two bfloat16
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
// (1) unused
@group(0) @binding(3) var<storage, read> scales: array<u32>;

struct Block { q0: vec4<u32>, q1: vec4<u32>, q2: vec4<u32>, q3: vec4<u32> }

fn load_block(i: u32) -> Block {
    return Block(quants[4u * i], quants[4u * i + 1u], quants[4u * i + 2u], quants[4u * i + 3u]);
}

fn halves(words: vec2<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
}
#endif

#ifdef HALVES
fn part0(b: Block) -> vec4<f32> { return halves(b.q0.xy); }
fn part1(b: Block) -> vec4<f32> { return halves(b.q0.zw); }
fn part2(b: Block) -> vec4<f32> { return halves(b.q1.xy); }
fn part3(b: Block) -> vec4<f32> { return halves(b.q1.zw); }
fn part4(b: Block) -> vec4<f32> { return halves(b.q2.xy); }
fn part5(b: Block) -> vec4<f32> { return halves(b.q2.zw); }
fn part6(b: Block) -> vec4<f32> { return halves(b.q3.xy); }
fn part7(b: Block) -> vec4<f32> { return halves(b.q3.zw); }
#endif

#ifdef F32
// (rows, cols/32, 8) vec4
@group(0) @binding(2) var<storage, read> quants: array<vec4<f32>>;
// (1) unused
@group(0) @binding(3) var<storage, read> scales: array<u32>;

struct Block { at: u32 }

fn load_block(i: u32) -> Block {
    return Block(8u * i);
}

#repeat w 8
fn part{w}(b: Block) -> vec4<f32> {
    return quants[b.at + {w}u];
}
#end
#endif
