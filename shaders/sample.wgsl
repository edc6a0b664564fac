// One token a logit column, written to TOKENS[sample_at + c]: bias, penalties, temperature, top-k, top-p, min-p, noise,
// argmax, in the order and by the definitions of src/sampling.rs.
//
// Logits are words here: their order is that of `ordered_key`, and a NaN counts as -inf by its bits.
// Grid: one workgroup a logit column. Thread t takes tokens t, t + WORKGROUP, … in ascending order.
// Thresholds: the largest key that keeps a mass of at least the target is found four bits a pass; masses of the fifteen
// candidates are summed a thread, then over threads ascending. For top-k the mass of a token is 1 (sums below 2^24, exact),
// for top-p it is exp(l - max).

#import params
#import order
#import rng

const WORKGROUP: u32 = {SAMPLE_THREADS}u;
const CANDIDATES: u32 = 15u;
// At least (MAX_RECENT) words of scratch are there for any WORKGROUP that makes sense.
const MAX_RECENT: u32 = 256u;

struct Fixed {
    vocabulary: u32,
}

@group(0) @binding(1) var<uniform> fixed: Fixed;
// (columns, vocabulary) f32 bits
@group(0) @binding(2) var<storage, read_write> logits: array<u32>;
// (4096) tokens of the round
@group(0) @binding(3) var<storage, read_write> tokens: array<u32>;
// (capacity) tokens by KV slot
@group(0) @binding(4) var<storage, read> history: array<u32>;
// (1024) token, f32 bits
@group(0) @binding(5) var<storage, read> bias: array<vec2<u32>>;

// (CANDIDATES, WORKGROUP) masses; also recent tokens, and keys and tokens of the argmax
var<workgroup> scratch: array<u32, CANDIDATES * WORKGROUP>;
// (CANDIDATES) whole masses
var<workgroup> masses: array<f32, CANDIDATES>;

fn add_bias(row: u32, thread: u32) {
    for (var i = thread; i < params.bias_count; i += WORKGROUP) {
        let entry = bias[i];
        if entry.x < fixed.vocabulary {
            let l = bitcast<f32>(logits[row + entry.x]) + bitcast<f32>(entry.y);
            logits[row + entry.x] = bitcast<u32>(l);
        }
    }
}

// scratch[i] is the i-th last token of the path; the last occurrence of a token counts them all and does the work.
fn penalise(row: u32, column: u32, thread: u32) {
    let position = position_of(column);
    let recent = min(min(params.penalty_last_n, MAX_RECENT), position + 1u);
    for (var i = thread; i < recent; i += WORKGROUP) {
        scratch[i] = history[slot_of(column, position - i)];
    }
    workgroupBarrier();
    for (var i = thread; i < recent; i += WORKGROUP) {
        let token = scratch[i];
        var count = 0u;
        var is_last = token < fixed.vocabulary;
        for (var j = 0u; j < recent; j++) {
            if scratch[j] == token {
                count += 1u;
                is_last = is_last && j >= i;
            }
        }
        if is_last {
            let bits = clean(logits[row + token]);
            var l = bitcast<f32>(bits);
            l = select(l * params.repeat_penalty, l / params.repeat_penalty, l > 0.0);
            l -= f32(count) * params.frequency_penalty + params.presence_penalty;
            logits[row + token] = select(bitcast<u32>(l), MINUS_INF, bits == MINUS_INF);
        }
    }
}

// The largest key and the lowest token that has it, over all threads.
fn argmax(key: u32, token: u32, thread: u32) -> vec2<u32> {
    workgroupBarrier();
    scratch[thread] = key;
    scratch[WORKGROUP + thread] = token;
    workgroupBarrier();
    for (var stride = WORKGROUP / 2u; stride > 0u; stride /= 2u) {
        if thread < stride {
            let other = thread + stride;
            let better = scratch[other] > scratch[thread]
                || (scratch[other] == scratch[thread] && scratch[WORKGROUP + other] < scratch[WORKGROUP + thread]);
            if better {
                scratch[thread] = scratch[other];
                scratch[WORKGROUP + thread] = scratch[WORKGROUP + other];
            }
        }
        workgroupBarrier();
    }
    return vec2<u32>(scratch[0], scratch[WORKGROUP]);
}

fn mass_of(bits: u32, maximum: f32, counting: bool) -> f32 {
    if counting {
        return 1.0;
    }
    return select(exp(bitcast<f32>(bits) - maximum), 0.0, bits == MINUS_INF);
}

// Largest threshold whose tokens (with key >= floor_key) have a mass of at least `target_mass`, or that share of all
// masses where `counting` is false.
fn threshold(row: u32, thread: u32, floor_key: u32, maximum: f32, counting: bool, target_mass: f32) -> u32 {
    var wanted = target_mass;
    if !counting {
        workgroupBarrier();
        var sum = 0.0;
        for (var t = thread; t < fixed.vocabulary; t += WORKGROUP) {
            let bits = logits[row + t];
            sum += select(0.0, mass_of(bits, maximum, counting), ordered_key(bits) >= floor_key);
        }
        scratch[thread] = bitcast<u32>(sum);
        workgroupBarrier();
        if thread == 0u {
            masses[0] = total(0u);
        }
        workgroupBarrier();
        wanted = target_mass * masses[0];
    }
    var found = 0u;
    for (var pass_index = 0u; pass_index < 8u; pass_index++) {
        let shift = 28u - 4u * pass_index;
#repeat i CANDIDATES
        var mass{i} = 0.0;
        let key{i} = max(found | (({i}u + 1u) << shift), floor_key);
#end
        for (var t = thread; t < fixed.vocabulary; t += WORKGROUP) {
            let bits = logits[row + t];
            let key = ordered_key(bits);
            if key >= key0 {
                let mass = mass_of(bits, maximum, counting);
#repeat i CANDIDATES
                mass{i} += select(0.0, mass, key >= key{i});
#end
            }
        }
        workgroupBarrier();
#repeat i CANDIDATES
        scratch[{i}u * WORKGROUP + thread] = bitcast<u32>(mass{i});
#end
        workgroupBarrier();
        if thread < CANDIDATES {
            masses[thread] = total(thread);
        }
        workgroupBarrier();
        var digit = 0u;
        for (var i = 0u; i < CANDIDATES; i++) {
            digit = select(digit, i + 1u, masses[i] >= wanted);
        }
        found |= digit << shift;
    }
    return max(found, floor_key);
}

fn total(candidate: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < WORKGROUP; i++) {
        sum += bitcast<f32>(scratch[candidate * WORKGROUP + i]);
    }
    return sum;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let column = params.logit_first + group.x;
    let row = group.x * fixed.vocabulary;
    add_bias(row, thread);
    storageBarrier();
    penalise(row, column, thread);
    storageBarrier();

    let greedy = params.temperature == 0.0;
    var best_key = 0u;
    var best = 0u;
    for (var t = thread; t < fixed.vocabulary; t += WORKGROUP) {
        var bits = clean(logits[row + t]);
        if !greedy {
            if bits != MINUS_INF {
                bits = bitcast<u32>(bitcast<f32>(bits) / params.temperature);
            }
            logits[row + t] = bits;
        }
        let key = ordered_key(bits);
        if key > best_key {
            best_key = key;
            best = t;
        }
    }
    var winner = argmax(best_key, best, thread);
    if !greedy {
        storageBarrier();
        let maximum = value_of(winner.x);
        var floor_key = 0u;
        if params.top_k > 0u && params.top_k < fixed.vocabulary {
            floor_key = threshold(row, thread, floor_key, maximum, true, f32(params.top_k));
        }
        if params.top_p < 1.0 {
            floor_key = threshold(row, thread, floor_key, maximum, false, params.top_p);
        }
        if params.min_p > 0.0 {
            // A logarithm that rounds up must not shut out the maximum itself.
            floor_key = max(floor_key, min(winner.x, ordered_key(bitcast<u32>(maximum + log(params.min_p)))));
        }
        let position = position_of(column) + 1u;
        best_key = 0u;
        best = 0u;
        for (var t = thread; t < fixed.vocabulary; t += WORKGROUP) {
            let bits = logits[row + t];
            if bits != MINUS_INF && ordered_key(bits) >= floor_key {
                let noisy = bitcast<f32>(bits) + gumbel(params.seed, position, t);
                let key = ordered_key(bitcast<u32>(noisy));
                if key > best_key {
                    best_key = key;
                    best = t;
                }
            }
        }
        winner = argmax(best_key, best, thread);
    }
    if thread == 0u {
        tokens[params.sample_at + group.x] = winner.y;
    }
}
