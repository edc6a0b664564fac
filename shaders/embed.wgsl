// out[c] = scale * weight[token], history[base + n] = token, for token = TOKENS[token_at + n] of the column's node n
//
// Only where the token's row lies in this part of the matrix; a token outside of it (also one that is no token at all)
// leaves its column alone, so no index needs trust.
// Grid: x over blocks of 32 weights, WORKGROUP a workgroup; y over live columns. No sums.

#import params
#import layouts

const WORKGROUP: u32 = 64u;

struct Fixed {
    first_row: u32,
    rows: u32,
    blocks: u32,
    scale: f32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
// (4096) tokens of the round
@group(0) @binding(4) var<storage, read> tokens: array<u32>;
// (capacity) tokens by KV slot
@group(0) @binding(5) var<storage, read_write> history: array<u32>;
// (columns, width/4)
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let block = id.x;
    let column = id.y;
    let token = tokens[params.token_at + node_of(column)];
    if block >= fixed.blocks || token < fixed.first_row || token - fixed.first_row >= fixed.rows {
        return;
    }
    if block == 0u {
        history[params.base + node_of(column)] = token;
    }
    let weights = load_block(token - fixed.first_row, block, fixed.blocks);
    let at = (column * fixed.blocks + block) * 8u;
#repeat h 2
#repeat w 4
    out[at + 4u * {h}u + {w}u] = fixed.scale * part{h}_{w}(weights);
#end
#end
}
