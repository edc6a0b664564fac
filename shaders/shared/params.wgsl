// What changes from run to run: the fields of plan::Params in their order, 256 bytes, at a dynamic offset.
struct Params {
    live_cols: u32,
    base: u32,
    token_at: u32,
    logit_first: u32,
    logit_cols: u32,
    sample_at: u32,
    seed: vec2<u32>,
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    penalty_last_n: u32,
    bias_count: u32,
    stats_at: u32,
    view_sink: u32,
    // The size covers `reserved`.
    @size(52) view_window: u32,
    ancestors: array<vec4<u32>, 4>,
    nodes: array<vec4<u32>, 4>,
}

@group(0) @binding(0) var<uniform> params: Params;

// Node of the tree that a column is.
fn node_of(column: u32) -> u32 {
    return params.nodes[column / 4u][column % 4u];
}

// Mask over the nodes of the path that ends in a column.
fn ancestors_of(column: u32) -> u32 {
    return params.ancestors[column / 4u][column % 4u];
}

// Position of a column's token: that of the root and the depth in the tree.
fn position_of(column: u32) -> u32 {
    return params.base + countOneBits(ancestors_of(column)) - 1u;
}

// Node that is the ancestor at a depth: the depth-th set bit.
fn ancestor_at(column: u32, depth: u32) -> u32 {
    var mask = ancestors_of(column);
    for (var i = 0u; i < depth; i++) {
        mask &= mask - 1u;
    }
    return countTrailingZeros(mask);
}

// KV slot of the token at `position` on the path to `column`.
fn slot_of(column: u32, position: u32) -> u32 {
    if position < params.base {
        return position;
    }
    return params.base + ancestor_at(column, position - params.base);
}
