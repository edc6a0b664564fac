// Statistics of a logit column that sample.wgsl left processed: with m = max l, Z = sum exp(l - m), ln p = l - m - ln Z,
//   entropy = -sum p ln p,  second moment = sum p (ln p)^2,  ln p of the sampled token,
//   the TOP tokens by l and the TOP tokens by l + noise (by l at temperature 0), each with its ln p, no truncation
//
// To TOKENS[stats_at + c * WORDS]: entropy, second moment, ln p of the sample, then (token, ln p) by falling l, then by
// falling l + noise; floats by their bits. Among equals the lowest id comes first. A token of l = -inf is never listed;
// what is left of a list has NO_TOKEN and -inf.
// Grid: one workgroup a logit column. Thread t takes tokens t, t + WORKGROUP, … in ascending order, keeps its own TOP in
// registers, and lists are merged in pairs. Sums: a thread's tokens ascending, then a fixed tree.

#import params
#import order
#import rng

const WORKGROUP: u32 = {SAMPLE_THREADS}u;
const TOP: u32 = 8u;
const WORDS: u32 = 35u;
const NO_TOKEN: u32 = 0xffffffffu;
// Where exp is 0 anyway: keeps products with it from being no number.
const LOWEST: f32 = -200.0;

struct Fixed {
    vocabulary: u32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
// (columns, vocabulary) f32 bits
@group(0) @binding(2) var<storage, read> logits: array<u32>;
// (4096) tokens of the round, samples, statistics
@group(0) @binding(3) var<storage, read_write> tokens: array<u32>;

// The first TOP by falling key, then rising token; key 0 is below that of every float.
struct List {
#repeat i TOP
    key{i}: u32,
    token{i}: u32,
#end
}

// (WORKGROUP/2, TOP, 2) lists on their way to another thread
var<workgroup> lists: array<u32, WORKGROUP * TOP>;
// (WORKGROUP) sums of e, e x, e x^2 for e = exp(x), x = l - m
var<workgroup> sums: array<vec3<f32>, WORKGROUP>;
var<workgroup> largest: u32;

fn offer(list: ptr<function, List>, new_key: u32, new_token: u32) {
    var key = new_key;
    var token = new_token;
    var above = false;
#repeat i TOP
    above = key > (*list).key{i} || (key == (*list).key{i} && token < (*list).token{i});
    let key{i} = (*list).key{i};
    let token{i} = (*list).token{i};
    (*list).key{i} = select(key{i}, key, above);
    (*list).token{i} = select(token{i}, token, above);
    key = select(key, key{i}, above);
    token = select(token, token{i}, above);
#end
}

// Afterwards thread 0 has the list of all.
fn merge(list: ptr<function, List>, thread: u32) {
    for (var stride = WORKGROUP / 2u; stride > 0u; stride /= 2u) {
        if thread >= stride && thread < 2u * stride {
            let at = (thread - stride) * 2u * TOP;
#repeat i TOP
            lists[at + 2u * {i}u] = (*list).key{i};
            lists[at + 2u * {i}u + 1u] = (*list).token{i};
#end
        }
        workgroupBarrier();
        if thread < stride {
            for (var at = thread * 2u * TOP; at < (thread + 1u) * 2u * TOP; at += 2u) {
                if lists[at] < (*list).key7 {
                    break;
                }
                offer(list, lists[at], lists[at + 1u]);
            }
        }
        workgroupBarrier();
    }
}

// l - m, and 0 for the largest even where that is infinite.
fn below_largest(bits: u32) -> f32 {
    return select(bitcast<f32>(bits) - value_of(largest), 0.0, ordered_key(bits) == largest);
}

fn ln_p(row: u32, token: u32, ln_z: f32) -> u32 {
    if token >= fixed.vocabulary {
        return MINUS_INF;
    }
    let bits = clean(logits[row + token]);
    return select(bitcast<u32>(below_largest(bits) - ln_z), MINUS_INF, bits == MINUS_INF);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.x * fixed.vocabulary;
    let position = position_of(params.logit_first + group.x) + 1u;
    let noisy = params.temperature > 0.0;
    var likeliest: List;
    var drawn: List;
    for (var t = thread; t < fixed.vocabulary; t += WORKGROUP) {
        let bits = clean(logits[row + t]);
        if bits == MINUS_INF {
            continue;
        }
        let key = ordered_key(bits);
        if key > likeliest.key7 {
            offer(&likeliest, key, t);
        }
        if noisy {
            let score = ordered_key(bitcast<u32>(bitcast<f32>(bits) + gumbel(params.seed, position, t)));
            if score > drawn.key7 {
                offer(&drawn, score, t);
            }
        }
    }
    merge(&likeliest, thread);
    if noisy {
        merge(&drawn, thread);
    } else {
        drawn = likeliest;
    }
    if thread == 0u {
        largest = likeliest.key0;
    }
    workgroupBarrier();

    var sum = vec3<f32>(0.0);
    for (var t = thread; t < fixed.vocabulary; t += WORKGROUP) {
        let bits = clean(logits[row + t]);
        if bits != MINUS_INF {
            let x = max(below_largest(bits), LOWEST);
            let e = exp(x);
            sum += vec3<f32>(e, e * x, e * x * x);
        }
    }
    sums[thread] = sum;
    workgroupBarrier();
    for (var stride = WORKGROUP / 2u; stride > 0u; stride /= 2u) {
        if thread < stride {
            sums[thread] += sums[thread + stride];
        }
        workgroupBarrier();
    }

    if thread == 0u {
        let z = sums[0].x;
        let ln_z = log(z);
        // x <= 0 <= ln Z, so no term takes from another.
        let entropy = ln_z - sums[0].y / z;
        let second_moment = sums[0].z / z - 2.0 * ln_z * sums[0].y / z + ln_z * ln_z;
        let at = params.stats_at + group.x * WORDS;
        let sampled = tokens[params.sample_at + group.x];
        tokens[at] = select(bitcast<u32>(entropy), 0u, largest == 0u);
        tokens[at + 1u] = select(bitcast<u32>(second_moment), 0u, largest == 0u);
        tokens[at + 2u] = ln_p(row, sampled, ln_z);
#repeat i TOP
        tokens[at + 3u + 2u * {i}u] = select(likeliest.token{i}, NO_TOKEN, likeliest.key{i} == 0u);
        tokens[at + 4u + 2u * {i}u] = select(ln_p(row, likeliest.token{i}, ln_z), MINUS_INF, likeliest.key{i} == 0u);
        tokens[at + 3u + 2u * (TOP + {i}u)] = select(drawn.token{i}, NO_TOKEN, drawn.key{i} == 0u);
        tokens[at + 4u + 2u * (TOP + {i}u)] = select(ln_p(row, drawn.token{i}, ln_z), MINUS_INF, drawn.key{i} == 0u);
#end
    }
}
