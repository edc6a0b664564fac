// cache[r][base + n] = cache[r][base + node_at_depth(n)]  for n = 1 …, the nodes of the path ancestors[0] below the root
//
// After a round accepted a path of a tree, its keys, values and tokens lie in the slots of its nodes; this makes them
// contiguous, as a chain would have left them.
// Grid: (row, word) folded over x and y, WORKGROUP a workgroup. A thread owns its word of every slot and goes up the path; a
// node's number is at least its depth, so nothing is overwritten that is still to be moved. No sums.

#import params

const WORKGROUP: u32 = 64u;

struct Fixed {
    rows: u32,
    capacity: u32,
    words: u32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
// (rows, capacity, words)
@group(0) @binding(2) var<storage, read_write> cache: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let item = (group.y * groups.x + group.x) * WORKGROUP + thread;
    if item >= fixed.rows * fixed.words {
        return;
    }
    let at = (item / fixed.words * fixed.capacity + params.base) * fixed.words + item % fixed.words;
    let path = ancestors_of(0u);
    var slot = at;
    for (var below = path & (path - 1u); below != 0u; below &= below - 1u) {
        slot += fixed.words;
        cache[slot] = cache[at + countTrailingZeros(below) * fixed.words];
    }
}
