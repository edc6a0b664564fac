// Blocks of 32 weights, one layout chosen by its #define; src/weights/format.rs has the words and bits.
//
// `load_block(row, b, blocks)` reads the words of block b of a row once. A block has two halves of four words w, four
// weights each. In quantised layouts `bytes{h}_{w}` gives the quants as signed bytes and `factors{h}` what they are
// multiplied with and what is added: weight = factors.x * quant + factors.y. `part{h}_{w}` gives four weights.
// With TEXTURE the matrix lies in two textures of TEXTURE_WIDTH texels a line, four words a texel, in groups of GROUP rows
// that are read by EIGHT neighbouring threads, four rows each: what they read at once lies side by side.

const LOW_NIBBLES: u32 = 0x0f0f0f0fu;

#ifdef TEXTURE
const TEXTURE_WIDTH: u32 = 2048u;
const EIGHT: u32 = 8u;
const GROUP: u32 = 32u;

// (rows/GROUP, cols/32, TEXELS, GROUP) texels
@group(0) @binding(2) var quants: texture_2d<u32>;
// (rows/GROUP, cols/32, EIGHT) texels, each of rows EIGHT apart
@group(0) @binding(3) var scales: texture_2d<u32>;

// Column and line of a texel. Some software divides lane by lane, also by a constant.
fn texel(i: u32) -> vec2<u32> {
    return vec2<u32>(i & (TEXTURE_WIDTH - 1u), i >> countTrailingZeros(TEXTURE_WIDTH));
}

fn quants_at(i: u32) -> vec4<u32> {
    return textureLoad(quants, texel(i), 0);
}

// Words of four rows of which `row` is the first.
fn scales_of_four(row: u32, b: u32, blocks: u32) -> vec4<u32> {
    let i = (row / GROUP * blocks + b) * EIGHT + row % EIGHT;
    return textureLoad(scales, texel(i), 0);
}

// Texel of a row's first block; the next block is GROUP * TEXELS on.
fn first_texel(row: u32, blocks: u32) -> u32 {
    return row / GROUP * GROUP * TEXELS * blocks + row % GROUP;
}

fn load_block(row: u32, b: u32, blocks: u32) -> Block {
    let scale = scales_of_four(row, b, blocks)[row / EIGHT % 4u];
    return block_at(first_texel(row, blocks) + b * GROUP * TEXELS, scale);
}
#endif

#ifdef Q4
#ifdef TEXTURE
const TEXELS: u32 = 1u;
#else
// (rows, cols/32) vec4: four words of nibbles
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
// (rows, cols/32) pack2x16float(scale, min)
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn quants_at(i: u32) -> vec4<u32> {
    return quants[i];
}

fn load_block(row: u32, b: u32, blocks: u32) -> Block {
    return block_at(row * blocks + b, scales[row * blocks + b]);
}
#endif

struct Block { q: vec4<u32>, scale: vec2<f32> }

fn block_at(i: u32, scale: u32) -> Block {
    return Block(quants_at(i), unpack2x16float(scale));
}

#repeat h 2
fn factors{h}(b: Block) -> vec2<f32> { return b.scale; }
#repeat w 4
fn bytes{h}_{w}(b: Block) -> u32 { return (b.q[{w}] >> (4u * {h}u)) & LOW_NIBBLES; }
#end
#end
#endif

#ifdef Q5
// (rows, cols/32, 5): four words of nibbles, one word of fifth bits
@group(0) @binding(2) var<storage, read> quants: array<u32>;
// (rows, cols/32) pack2x16float(scale, min)
@group(0) @binding(3) var<storage, read> scales: array<u32>;

struct Block { q: vec4<u32>, high: u32, scale: vec2<f32> }

fn load_block(row: u32, b: u32, blocks: u32) -> Block {
    let i = row * blocks + b;
    let at = i * 5u;
    let q = vec4<u32>(quants[at], quants[at + 1u], quants[at + 2u], quants[at + 3u]);
    return Block(q, quants[at + 4u], unpack2x16float(scales[i]));
}

#repeat h 2
fn factors{h}(b: Block) -> vec2<f32> { return b.scale; }
#repeat w 4
fn bytes{h}_{w}(b: Block) -> u32 {
    return ((b.q[{w}] >> (4u * {h}u)) & LOW_NIBBLES) | (((b.high >> (4u * {h}u + {w}u)) & 0x01010101u) << 4u);
}
#end
#end
#endif

#ifdef Q8
#ifdef TEXTURE
const TEXELS: u32 = 2u;
const NEXT: u32 = GROUP;
#else
const NEXT: u32 = 1u;
// (rows, cols/32, 2) vec4: eight words of signed bytes
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
// (rows, cols/32) pack2x16float(scale, 0)
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn quants_at(i: u32) -> vec4<u32> {
    return quants[i];
}

fn load_block(row: u32, b: u32, blocks: u32) -> Block {
    return block_at(2u * (row * blocks + b), scales[row * blocks + b]);
}
#endif

struct Block { q0: vec4<u32>, q1: vec4<u32>, scale: f32 }

fn block_at(i: u32, scale: u32) -> Block {
    return Block(quants_at(i), quants_at(i + NEXT), unpack2x16float(scale).x);
}

#repeat h 2
fn factors{h}(b: Block) -> vec2<f32> { return vec2<f32>(b.scale, 0.0); }
#repeat w 4
fn bytes{h}_{w}(b: Block) -> u32 { return b.q{h}[{w}]; }
#end
#end
#endif

#ifdef Q4K
// (rows, cols/32) vec4: four words of nibbles
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
// (rows, cols/256, 5): pack2x16float(d, dmin), then a half-word `scale | min << 8` a block
@group(0) @binding(3) var<storage, read> scales: array<u32>;

struct Block { q: vec4<u32>, scale: vec2<f32> }

fn load_block(row: u32, b: u32, blocks: u32) -> Block {
    let i = row * blocks + b;
    let at = i / 8u * 5u;
    let d = unpack2x16float(scales[at]);
    let s = scales[at + 1u + i % 8u / 2u] >> (16u * (i % 2u));
    return Block(quants[i], vec2<f32>(d.x * f32(s & 0xffu), -(d.y * f32((s >> 8u) & 0xffu))));
}

#repeat h 2
fn factors{h}(b: Block) -> vec2<f32> { return b.scale; }
#repeat w 4
fn bytes{h}_{w}(b: Block) -> u32 { return (b.q[{w}] >> (4u * {h}u)) & LOW_NIBBLES; }
#end
#end
#endif

#ifdef Q5K
// (rows, cols/32, 5): four words of nibbles, one word of fifth bits
@group(0) @binding(2) var<storage, read> quants: array<u32>;
// (rows, cols/256, 5): pack2x16float(d, dmin), then a half-word `scale | min << 8` a block
@group(0) @binding(3) var<storage, read> scales: array<u32>;

struct Block { q: vec4<u32>, high: u32, scale: vec2<f32> }

fn load_block(row: u32, b: u32, blocks: u32) -> Block {
    let i = row * blocks + b;
    let s_at = i / 8u * 5u;
    let d = unpack2x16float(scales[s_at]);
    let s = scales[s_at + 1u + i % 8u / 2u] >> (16u * (i % 2u));
    let at = i * 5u;
    let q = vec4<u32>(quants[at], quants[at + 1u], quants[at + 2u], quants[at + 3u]);
    return Block(q, quants[at + 4u], vec2<f32>(d.x * f32(s & 0xffu), -(d.y * f32((s >> 8u) & 0xffu))));
}

#repeat h 2
fn factors{h}(b: Block) -> vec2<f32> { return b.scale; }
#repeat w 4
fn bytes{h}_{w}(b: Block) -> u32 {
    return ((b.q[{w}] >> (4u * {h}u)) & LOW_NIBBLES) | (((b.high >> (4u * {h}u + {w}u)) & 0x01010101u) << 4u);
}
#end
#end
#endif

#ifdef Q6K
// (rows, cols/32, 3) vec2: four words of nibbles, two words of two high bits
@group(0) @binding(2) var<storage, read> quants: array<vec2<u32>>;
// (rows, cols/256, 5): pack2x16float(d, 0), then a signed byte for each 16 weights
@group(0) @binding(3) var<storage, read> scales: array<u32>;

struct Block { q: vec4<u32>, high: vec2<u32>, scales: vec2<f32> }

fn load_block(row: u32, b: u32, blocks: u32) -> Block {
    let i = row * blocks + b;
    let s_at = i / 8u * 5u;
    let d = unpack2x16float(scales[s_at]).x;
    let pair = unpack4xI8(scales[s_at + 1u + i % 8u / 2u] >> (16u * (i % 2u)));
    let at = i * 3u;
    return Block(vec4<u32>(quants[at], quants[at + 1u]), quants[at + 2u], d * vec2<f32>(pair.xy));
}

#repeat h 2
fn factors{h}(b: Block) -> vec2<f32> { return vec2<f32>(b.scales[{h}], 0.0); }
#repeat w 4
fn bytes{h}_{w}(b: Block) -> u32 {
    let low = (b.q[{w}] >> (4u * {h}u)) & LOW_NIBBLES;
    let high = ((b.high[{h}] >> (2u * {w}u)) & 0x03030303u) << 4u;
    // Less 32 in each byte: no byte borrows from its neighbour, and the sign comes out right.
    return (((low | high) | 0x80808080u) - 0x20202020u) ^ 0x80808080u;
}
#end
#end
#endif

#ifdef QUANTS
#repeat h 2
#repeat w 4
fn part{h}_{w}(b: Block) -> vec4<f32> {
    let f = factors{h}(b);
    return f.x * vec4<f32>(unpack4xI8(bytes{h}_{w}(b))) + f.y;
}
#end
#end
#endif

#ifdef MASKS
// Weights and bytes parted without shifting a vector, which some software does lane by lane. `raised{h}_{w}(b)` gives four
// weights where they stand in their word, as powers of two of what they are, `lowered{h}(word)` four signed bytes of a vector
// as the inverse powers, and `excess{h}` what the products of both have too much: where a weight stands on top its sign comes
// out of the conversion, elsewhere it has none.
const BYTES = vec4<u32>(0xffu, 0xff00u, 0xff0000u, 0xff000000u);
const LOWER0 = vec4<f32>(1.0, 0x1p-16, 0x1p-32, 0x1p-48);
// Bytes of which the lower three are 128 more.
const LESS0 = vec4<f32>(-128.0, -0x1p-1, -0x1p-9, 0.0);

fn parted(word: u32, masks: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(bitcast<vec4<i32>>(vec4<u32>(word) & masks));
}

#ifdef NIBBLES
const LOW = vec4<u32>(0xfu, 0xf00u, 0xf0000u, 0xf000000u);
const HIGH = vec4<u32>(0xf0u, 0xf000u, 0xf00000u, 0xf0000000u);
const LOWER1 = LOWER0 * 0x1p-4;
const LESS1 = LESS0 * 0x1p-4;

#repeat w 4
fn raised0_{w}(b: Block) -> vec4<f32> { return parted(b.q[{w}], LOW); }
fn raised1_{w}(b: Block) -> vec4<f32> { return parted(b.q[{w}] ^ 0x80000000u, HIGH); }
#end
fn excess0(v: vec4<f32>) -> f32 { return 0.0; }
fn excess1(v: vec4<f32>) -> f32 { return v.w * -0x1p31; }
#else
const LOWER1 = LOWER0;
const LESS1 = LESS0;

#repeat h 2
#ifdef OFFSET
#repeat w 4
fn raised{h}_{w}(b: Block) -> vec4<f32> { return parted(bytes{h}_{w}(b), BYTES); }
#end
fn excess{h}(v: vec4<f32>) -> f32 { return 0.0; }
#else
#repeat w 4
fn raised{h}_{w}(b: Block) -> vec4<f32> { return parted(bytes{h}_{w}(b) ^ 0x808080u, BYTES); }
#end
fn excess{h}(v: vec4<f32>) -> f32 { return fma(v.x, 0x1p7, fma(v.y, 0x1p15, v.z * 0x1p23)); }
#endif
#end
#endif

#repeat h 2
fn lowered{h}(word: u32) -> vec4<f32> { return fma(parted(word ^ 0x808080u, BYTES), LOWER{h}, LESS{h}); }
#end
#endif

#ifdef F16
// (rows, cols/32, 4) vec4: sixteen words of two halves
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
// (1) unused
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn halves(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
#endif

#ifdef BF16
// (rows, cols/32, 4) vec4: sixteen words of two bfloat16
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
// (1) unused
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn halves(words: vec2<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
}
#endif

#ifdef HALVES
struct Block { q0: vec4<u32>, q1: vec4<u32>, q2: vec4<u32>, q3: vec4<u32> }

fn load_block(row: u32, b: u32, blocks: u32) -> Block {
    let at = 4u * (row * blocks + b);
    return Block(quants[at], quants[at + 1u], quants[at + 2u], quants[at + 3u]);
}

fn part0_0(b: Block) -> vec4<f32> { return halves(b.q0.xy); }
fn part0_1(b: Block) -> vec4<f32> { return halves(b.q0.zw); }
fn part0_2(b: Block) -> vec4<f32> { return halves(b.q1.xy); }
fn part0_3(b: Block) -> vec4<f32> { return halves(b.q1.zw); }
fn part1_0(b: Block) -> vec4<f32> { return halves(b.q2.xy); }
fn part1_1(b: Block) -> vec4<f32> { return halves(b.q2.zw); }
fn part1_2(b: Block) -> vec4<f32> { return halves(b.q3.xy); }
fn part1_3(b: Block) -> vec4<f32> { return halves(b.q3.zw); }
#endif

#ifdef F32
// (rows, cols/32, 8) vec4
@group(0) @binding(2) var<storage, read> quants: array<vec4<f32>>;
// (1) unused
@group(0) @binding(3) var<storage, read> scales: array<u32>;

struct Block { at: u32 }

fn load_block(row: u32, b: u32, blocks: u32) -> Block {
    return Block(8u * (row * blocks + b));
}

#repeat h 2
#repeat w 4
fn part{h}_{w}(b: Block) -> vec4<f32> { return quants[b.at + 4u * {h}u + {w}u]; }
#end
#end
#endif
