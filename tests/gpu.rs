//! The GPU executor against the CPU executor, and against itself at other column counts.
//!
//! Runs on any adapter, software ones included; without one these tests fail, they do not pass.

use foredraft::cpu::CpuExecutor;
use foredraft::error::Error;
use foredraft::gpu::KnownCuts;
use foredraft::gpu::kernels::Geometry;
use foredraft::gpu::{AdapterChoice, GpuExecutor};
use foredraft::plan::*;
use foredraft::weights::decode::quantise;
use foredraft::weights::format::Layout;
use futures_lite::future::block_on;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

#[path = "support/device.rs"]
mod device;
#[path = "support/noise.rs"]
mod noise;
use device::{floats, gpu, read, run, upload, upload_floats};
use noise::Noise;

/// The smallest bucket for some columns.
fn bucket(columns: usize) -> usize {
    *COLUMN_BUCKETS.iter().find(|&&bucket| bucket >= columns).expect("at most 16 columns")
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "lengths");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let close = (f - e).abs() <= tolerance * (1.0 + e.abs());
        assert!(close, "element {i}: GPU {f}, CPU {e}");
    }
}

/// Runs `case` on a few random values, the same ones every time.
fn check<S: Strategy>(cases: u32, strategy: S, case: impl Fn(S::Value)) {
    let config = Config { cases, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&strategy, |value| {
            case(value);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Ancestor masks of a random tree, by node.
fn random_ancestors(noise: &mut Noise, nodes: usize) -> Vec<u32> {
    let mut ancestors = vec![1u32];
    for node in 1..nodes {
        let parent = noise.below(node);
        ancestors.push(ancestors[parent] | 1 << node);
    }
    ancestors
}

/// A pass over `columns` nodes of a random tree of the widest kind, in any order.
fn random_tree(noise: &mut Noise, columns: usize, base: usize) -> Params {
    let ancestors = random_ancestors(noise, MAX_NODES);
    let mut nodes: Vec<usize> = (0..MAX_NODES).collect();
    for i in 0..columns {
        nodes.swap(i, i + noise.below(MAX_NODES - i));
    }
    Params::tree(&nodes[..columns], &ancestors, base, 0)
}

fn matrix(
    executor: &dyn Executor,
    noise: &Noise,
    layout: Layout,
    rows: usize,
    cols: usize,
    first: usize,
) -> MatrixPart {
    let (words, scale_words) = noise.clone().matrix(layout, rows * cols);
    let [quants, scales] = executor.alloc_matrix("test", layout, rows, cols).expect("alloc");
    let part = MatrixPart { layout, quants, scales, first_row: first as u32, rows: rows as u32, cols: cols as u32 };
    executor.write_matrix(&part, 0, &words, &scale_words).expect("write");
    part
}

/// A vector buffer with contents, quantised or not, of `cols` elements a column.
fn vector(executor: &dyn Executor, columns: &[f32], quantised: bool) -> Vector {
    let words = vector_words(columns, quantised);
    // As a model makes it: large enough to be bound as a uniform.
    let buffer = executor.alloc("vector", words.len().max(UNIFORM_WORDS)).expect("alloc");
    executor.write(buffer, 0, &words).expect("write");
    if quantised { Vector::Q8(buffer) } else { Vector::F32(buffer) }
}

fn vector_words(columns: &[f32], quantised: bool) -> Vec<u32> {
    if !quantised {
        return bytemuck::cast_slice(columns).to_vec();
    }
    let mut words = vec![0; columns.len() / 32 * Q8_WORDS];
    for (values, words) in columns.as_chunks::<32>().0.iter().zip(words.chunks_exact_mut(Q8_WORDS)) {
        quantise(values, words);
    }
    words
}

/// What a kernel wrote, 16 columns of `width`: floats, or of each block the scale, the sum, then the bytes.
fn written(executor: &dyn Executor, out: Vector, width: usize) -> Vec<f32> {
    let words = read(executor, out.buffer(), 16 * out.words(width));
    match out {
        Vector::F32(_) => floats(words),
        Vector::Q8(_) => words
            .chunks_exact(Q8_WORDS)
            .flat_map(|block| {
                let bytes: &[i8] = bytemuck::cast_slice(&block[..8]);
                let scale = f32::from_bits(block[8]);
                let sum: i32 = bytes.iter().map(|&byte| i32::from(byte)).sum();
                let said = f32::from_bits(block[9]);
                assert!((said - scale * sum as f32).abs() <= 1e-5 * said.abs(), "sum {said} of {sum} x {scale}");
                bytes.iter().map(|&byte| f32::from(byte) * scale).collect::<Vec<_>>()
            })
            .collect(),
    }
}

/// Quantised values may differ by a step: where the device rounds the other way.
#[track_caller]
fn assert_close_or_a_step(found: &[f32], expected: &[f32], out: Vector, tolerance: f32) {
    match out {
        Vector::F32(_) => assert_close(found, expected, tolerance),
        Vector::Q8(_) => {
            let mut steps = 0;
            for (found, expected) in found.chunks_exact(32).zip(expected.chunks_exact(32)) {
                let step = expected.iter().fold(0.0f32, |most, value| most.max(value.abs())) / 127.0;
                for (f, e) in found.iter().zip(expected) {
                    assert!((f - e).abs() <= step * 1.01 + tolerance * e.abs(), "GPU {f}, CPU {e}, step {step}");
                    steps += u32::from((f - e).abs() > step * 0.5);
                }
            }
            assert!(steps as usize <= 1 + found.len() / 200, "{steps} of {} differ by a step", found.len());
        }
    }
}

/// Of some elements 127 over the largest is infinite.
#[test]
fn blocks_of_tiny_elements_are_quantised_as_zeros() {
    for executor in [&gpu() as &dyn Executor, &CpuExecutor::default()] {
        let x = upload_floats(executor, &Noise::new(2).floats(MAX_COLUMNS * 96));
        let weight = upload_floats(executor, [[1.0; 32], [1e-37; 32], [1e-29; 32]].as_flattened());
        let out = vector(executor, &[1.0; MAX_COLUMNS * 96], true);
        let step = Step::RmsNorm { x, weight, out, width: 96, eps: 1e-5, add: false, columns: Columns::All };
        run(executor, 1, vec![step], &[], Params::chain(1, 0, 0));
        let words = read(executor, out.buffer(), out.words(96));
        for (block, most) in words.chunks_exact(Q8_WORDS).zip([127, 0, 127]) {
            let bytes: &[i8] = bytemuck::cast_slice(&block[..8]);
            assert_eq!(bytes.iter().map(|byte| byte.unsigned_abs()).max(), Some(most), "{}", executor.device().name);
            let [scale, sum] = [8, 9].map(|word| f32::from_bits(block[word]));
            assert!((scale > 0.0) == (most > 0) && sum.abs() <= 32.0 * 127.0 * scale, "scale {scale}, sum {sum}");
        }
    }
}

fn layout() -> impl Strategy<Value = Layout> {
    proptest::sample::select(Layout::ALL.to_vec())
}

#[test]
fn embed_agrees_with_its_twin() {
    let (gpu, cpu) = (gpu(), CpuExecutor::default());
    check(18, (layout(), 1usize..=16, 1usize..4, 0usize..100, any::<u32>()), |(layout, columns, width, base, seed)| {
        let mut noise = Noise::new(seed);
        let (rows, first, width, scale) = (50, 20, 256 * width, 1.5);
        let params =
            if seed % 2 == 0 { Params::chain(columns, base, 0) } else { random_tree(&mut noise, columns, base) };
        // Some lie before, some behind this part, one is no token at all.
        let mut tokens: Vec<u32> = (0..MAX_NODES).map(|_| noise.below(100) as u32).collect();
        tokens[0] = u32::MAX;
        let outcome = |executor: &dyn Executor| {
            let mark = executor.mark();
            let weight = matrix(executor, &noise, layout, rows, width, first);
            let history = executor.alloc("history", 160).expect("alloc");
            let out = executor.alloc("out", 16 * width).expect("alloc");
            let step = Step::Embed { weight, history, out, scale };
            run(executor, bucket(columns), vec![step], &tokens, params);
            let outcome = (read(executor, history, 160), floats(read(executor, out, 16 * width)));
            executor.release(mark);
            outcome
        };
        let (found, expected) = (outcome(&gpu), outcome(&cpu));
        assert_eq!(found.0, expected.0, "history");
        assert_close(&found.1, &expected.1, 1e-6);
    });
}

#[test]
fn rms_norm_agrees_with_its_twin() {
    let (gpu, cpu) = (gpu(), CpuExecutor::default());
    let shapes = (1usize..=16, 1usize..50, any::<bool>(), any::<bool>(), any::<bool>(), any::<u32>());
    check(24, shapes, |(columns, blocks, quantised, add, logits, seed)| {
        let (width, add) = (32 * blocks, add && !quantised);
        let noise = Noise::new(seed);
        let mut params = Params::chain(columns, 3, 0);
        params.logit_first = columns as u32 / 2;
        params.logit_cols = columns as u32 - params.logit_first;
        let columns_of = if logits { Columns::Logits } else { Columns::All };
        let outcome = |executor: &dyn Executor| {
            let mut noise = noise.clone();
            let mark = executor.mark();
            let x = upload_floats(executor, &noise.floats(16 * width));
            let weight = upload_floats(executor, &noise.floats(width));
            let out = vector(executor, &noise.floats(16 * width), quantised);
            let (width_u32, eps) = (width as u32, 1e-5);
            let step = Step::RmsNorm { x, weight, out, width: width_u32, eps, add, columns: columns_of };
            run(executor, bucket(columns), vec![step], &[], params);
            let outcome = written(executor, out, width);
            executor.release(mark);
            (outcome, out)
        };
        let ((found, out), (expected, _)) = (outcome(&gpu), outcome(&cpu));
        assert_close_or_a_step(&found, &expected, out, 1e-5);
    });
}

#[test]
fn matvec_agrees_with_its_twin() {
    let (gpu, cpu) = (gpu(), CpuExecutor::default());
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    check(
        40,
        (layout(), 1usize..=16, 1usize..150, 1usize..4, flags, any::<u32>()),
        |(layout, columns, rows, cols, flags, seed)| {
            let (add, logits, quantised) = (flags.0, flags.1, flags.2 && layout.is_quantised());
            let noise = Noise::new(seed);
            let cols = if layout.scale_words().1 == 8 { 256 * cols } else { 32 * (8 * cols - 3) };
            let (first, out_offset) = (5, 7);
            let stride = first + out_offset + rows + 3;
            let mut params = Params::chain(columns, 0, 0);
            params.logit_cols = columns.div_ceil(3) as u32;
            let outcome = |executor: &dyn Executor| {
                let mut noise = noise.clone();
                let mark = executor.mark();
                let weight = matrix(executor, &noise, layout, rows, cols, first);
                let x = vector(executor, &noise.floats(16 * cols), quantised);
                let out = upload_floats(executor, &noise.floats(16 * stride));
                let step = Step::Matvec {
                    weight,
                    x,
                    out,
                    out_offset: out_offset as u32,
                    out_stride: stride as u32,
                    add,
                    columns: if logits { Columns::Logits } else { Columns::All },
                };
                run(executor, bucket(columns), vec![step], &[], params);
                let outcome = floats(read(executor, out, 16 * stride));
                executor.release(mark);
                outcome
            };
            assert_close(&outcome(&gpu), &outcome(&cpu), 2e-4);
        },
    );
}

#[test]
fn activation_agrees_with_its_twin() {
    let (gpu, cpu) = (gpu(), CpuExecutor::default());
    let cases = (1usize..=16, 1usize..20, any::<bool>(), any::<bool>(), any::<u32>());
    check(16, cases, |(columns, blocks, silu, quantised, seed)| {
        let width = 32 * blocks;
        let noise = Noise::new(seed);
        let outcome = |executor: &dyn Executor| {
            let mark = executor.mark();
            let x: Vec<f32> = noise.clone().floats(32 * width).iter().map(|v| 30.0 * v).collect();
            let x = upload_floats(executor, &x);
            let out = vector(executor, &vec![0.0; 16 * width], quantised);
            let gate = if silu { Gate::Silu } else { Gate::GeluTanh };
            let step = Step::Activation { x, out, width: width as u32, gate };
            run(executor, bucket(columns), vec![step], &[], Params::chain(columns, 0, 0));
            let outcome = written(executor, out, width);
            executor.release(mark);
            (outcome, out)
        };
        let ((found, out), (expected, _)) = (outcome(&gpu), outcome(&cpu));
        assert_close_or_a_step(&found, &expected, out, 1e-5);
    });
}

/// Everything attention needs, with random contents.
struct Attention {
    qkv: BufferId,
    k_cache: BufferId,
    v_cache: BufferId,
    rope: BufferId,
    qk_norm: BufferId,
    partial: BufferId,
    out: Vector,
    shape: AttentionShape,
}

impl Attention {
    fn new(executor: &dyn Executor, mut noise: Noise, shape: AttentionShape, quantised: bool) -> Attention {
        let AttentionShape { heads, kv_heads, head_dim, capacity, .. } = shape;
        let size = |factors: &[u32]| factors.iter().product::<u32>() as usize;
        let cache = size(&[kv_heads, capacity, head_dim / 2]);
        let qkv = vector(executor, &noise.floats(size(&[16, heads + 2 * kv_heads, head_dim])), false).buffer();
        let rope = noise.floats(size(&[capacity, head_dim / 2]));
        let rope: Vec<f32> = rope.iter().flat_map(|angle| [(9.0 * angle).cos(), (9.0 * angle).sin()]).collect();
        Attention {
            qkv,
            k_cache: upload(executor, &noise.halves(cache)),
            v_cache: upload(executor, &noise.halves(cache)),
            rope: upload_floats(executor, &rope),
            qk_norm: upload_floats(executor, &noise.floats(size(&[2, head_dim]))),
            partial: executor.alloc("partial", size(&[16, heads, shape.chunks(), head_dim + 4])).expect("alloc"),
            out: vector(executor, &vec![0.0; size(&[16, heads, head_dim])], quantised),
            shape,
        }
    }

    fn rope_kv(&self, pairs: RopePairs, norm: bool) -> Step {
        Step::RopeKv {
            qkv: self.qkv,
            k_cache: self.k_cache,
            v_cache: self.v_cache,
            rope: self.rope,
            qk_norm: norm.then_some(self.qk_norm),
            shape: self.shape,
            pairs,
            eps: 1e-6,
        }
    }

    fn attention(&self) -> [Step; 2] {
        let (qkv, k_cache, v_cache, partial) = (self.qkv, self.k_cache, self.v_cache, self.partial);
        [
            Step::Attention { qkv, k_cache, v_cache, partial, shape: self.shape },
            Step::AttentionCombine { partial, out: self.out, shape: self.shape },
        ]
    }

    fn out(&self, executor: &dyn Executor) -> Vec<u32> {
        read(executor, self.out.buffer(), 16 * self.out.words((self.shape.heads * self.shape.head_dim) as usize))
    }
}

fn shape() -> impl Strategy<Value = AttentionShape> {
    let head_dims = proptest::sample::select(vec![16u32, 32, 64, 80, 128, 256]);
    (1u32..3, 1u32..6, head_dims, 0u32..100).prop_map(|(kv_heads, group, head_dim, window)| AttentionShape {
        heads: kv_heads * group,
        kv_heads,
        head_dim,
        capacity: 320,
        window: if window < 40 { 0 } else { window },
        scale: 1.0 / (head_dim as f32).sqrt(),
    })
}

#[test]
fn rope_kv_agrees_with_its_twin() {
    let (gpu, cpu) = (gpu(), CpuExecutor::default());
    let cases = (shape(), 1usize..=16, 0usize..280, any::<bool>(), any::<bool>(), any::<u32>());
    check(16, cases, |(shape, columns, base, halves, norm, seed)| {
        let mut noise = Noise::new(seed);
        let params = random_tree(&mut noise, columns, base);
        let pairs = if halves { RopePairs::Halves } else { RopePairs::Adjacent };
        let outcome = |executor: &dyn Executor| {
            let mark = executor.mark();
            let tensors = Attention::new(executor, noise.clone(), shape, false);
            run(executor, bucket(columns), vec![tensors.rope_kv(pairs, norm)], &[], params);
            let cache = (shape.kv_heads * shape.capacity * shape.head_dim / 2) as usize;
            let size = (16 * (shape.heads + 2 * shape.kv_heads) * shape.head_dim) as usize;
            let outcome = (
                floats(read(executor, tensors.qkv, size)),
                noise::unpack(&read(executor, tensors.k_cache, cache)),
                noise::unpack(&read(executor, tensors.v_cache, cache)),
            );
            executor.release(mark);
            outcome
        };
        let (found, expected) = (outcome(&gpu), outcome(&cpu));
        assert_close(&found.0, &expected.0, 1e-5);
        // A half has eleven bits, and devices may round to either neighbour.
        assert_close(&found.1, &expected.1, 1.0 / 1024.0);
        assert_close(&found.2, &expected.2, 1.0 / 1024.0);
    });
}

#[test]
fn attention_and_attention_combine_agree_with_their_twins() {
    let gpus = [Geometry::SOFTWARE, Geometry::HARDWARE].map(|geometry| device::gpu_with(None, Some(geometry)));
    let cpu = CpuExecutor::default();
    let views = prop_oneof![Just((0, 0)), (0u32..300, 1u32..300)];
    check(40, (shape(), views, 1usize..=16, 0usize..280, any::<u32>()), |(shape, view, columns, base, seed)| {
        let quantised = seed % 3 == 0 && shape.head_dim.is_multiple_of(32);
        let mut noise = Noise::new(seed);
        let mut params = random_tree(&mut noise, columns, base);
        (params.view_sink, params.view_window) = view;
        let outcome = |executor: &dyn Executor| {
            let mark = executor.mark();
            let tensors = Attention::new(executor, noise.clone(), shape, quantised);
            run(executor, bucket(columns), tensors.attention().to_vec(), &[], params);
            let outcome = written(executor, tensors.out, (shape.heads * shape.head_dim) as usize);
            executor.release(mark);
            (outcome, tensors.out)
        };
        let (expected, _) = outcome(&cpu);
        for gpu in &gpus {
            let (found, out) = outcome(gpu);
            assert_close_or_a_step(&found, &expected, out, 1e-5);
        }
    });
}

/// Against softmax over exactly the positions that are in view, in f64; the GPU and its twin.
#[test]
fn a_view_sees_the_sinks_and_the_window() {
    let (gpu, cpu) = (gpu(), CpuExecutor::default());
    let views = (0u32..300, 1u32..300, 0u32..310, 0u32..200, any::<u32>());
    check(24, views, |(sink, view_window, position, window, seed)| {
        let (head_dim, window) = (64, if window < 100 { 0 } else { window });
        let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim, capacity: 320, window, scale: 0.5 };
        let mut params = Params::chain(1, position as usize, 0);
        (params.view_sink, params.view_window) = (sink, view_window);
        for executor in [&gpu as &dyn Executor, &cpu] {
            let mark = executor.mark();
            let tensors = Attention::new(executor, Noise::new(seed), shape, false);
            let size = (head_dim * 320) as usize;
            let query = floats(read(executor, tensors.qkv, head_dim as usize));
            let [keys, values] =
                [tensors.k_cache, tensors.v_cache].map(|cache| noise::unpack(&read(executor, cache, size / 2)));
            run(executor, 1, tensors.attention().to_vec(), &[], params);
            let found = &floats(tensors.out(executor))[..head_dim as usize];
            executor.release(mark);
            let sees = |p: u32| (p < sink || p + view_window > position) && (window == 0 || p + window > position);
            let row = |cache: &[f32], p: u32| cache[(p * head_dim) as usize..][..head_dim as usize].to_vec();
            let seen: Vec<u32> = (0..=position).filter(|&p| sees(p)).collect();
            let weight = |p: u32| -> f64 {
                let products =
                    row(&keys, p).iter().zip(&query).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum::<f64>();
                (0.5 * products).exp()
            };
            let sum: f64 = seen.iter().map(|&p| weight(p)).sum();
            let mut expected = vec![0.0; head_dim as usize];
            for &p in &seen {
                expected.iter_mut().zip(row(&values, p)).for_each(|(out, v)| *out += (weight(p) / sum) as f32 * v);
            }
            assert_close(found, &expected, 1e-5);
        }
    });
}

/// Numbers are only moved, so the words are equal; slots beyond the path stay as they were.
#[test]
fn compact_agrees_with_its_twin() {
    let (gpu, cpu) = (gpu(), CpuExecutor::default());
    check(24, (1usize..5, 1usize..130, 0usize..68, any::<u32>()), |(rows, words, base, seed)| {
        let mut noise = Noise::new(seed);
        let capacity = 100;
        let contents: Vec<u32> = (0..rows * capacity * words).map(|_| noise.word()).collect();
        let path = noise.word() | 1;
        let last = 31 - path.leading_zeros();
        let mut params = Params::chain(1, base, 0);
        (params.nodes[0], params.ancestors[0]) = (last, path);
        let mut expected = contents.clone();
        let nodes: Vec<usize> = (0..32).filter(|node| path >> node & 1 == 1).collect();
        for row in 0..rows {
            for (depth, node) in nodes.iter().enumerate() {
                let at = |slot: usize| (row * capacity + base + slot) * words;
                expected[at(depth)..at(depth) + words].copy_from_slice(&contents[at(*node)..at(*node) + words]);
            }
        }
        for executor in [&gpu as &dyn Executor, &cpu] {
            let mark = executor.mark();
            let buffer = upload(executor, &contents);
            let [rows, capacity, words] = [rows, capacity, words].map(|size| size as u32);
            run(executor, 1, vec![Step::Compact { buffer, rows, capacity, words }], &[], params);
            assert!(read(executor, buffer, contents.len()) == expected, "{} {path:#b}", executor.device().name);
            executor.release(mark);
        }
    });
}

#[test]
fn every_matvec_layout_gives_a_column_the_same_bits_at_any_width() {
    same_bits_at_any_width(&gpu(), &Layout::ALL);
}

/// Textures or buffers, uniforms or buffers, dot4I8Packed or floats: what a device may choose changes no bit of a quantised
/// product, whose sums over a block are exact.
#[test]
fn where_a_matrix_lies_and_how_bytes_are_multiplied_changes_no_bit() {
    let buffers = Geometry { texture: false, uniform: false, ..Geometry::SOFTWARE };
    let bits = |geometry: Geometry, layouts: &[Layout]| -> Vec<_> {
        let gpu = device::gpu_with(Some(Arithmetic::Q8), Some(geometry));
        layouts.iter().map(|&layout| same_bits_at_any_width(&gpu, &[layout])).collect()
    };
    let ways = [Layout::Q4, Layout::Q8, Layout::Q5, Layout::Q6K];
    let expected = bits(Geometry::SOFTWARE, &ways);
    assert!(bits(Geometry { masks: true, ..Geometry::SOFTWARE }, &ways) == expected, "shifts against masks");
    assert!(bits(buffers, &ways[..2]) == expected[..2], "textures and uniforms against buffers");
    let dot4 = Geometry { dot4: MAX_COLUMNS as u32, ..Geometry::SOFTWARE };
    assert!(bits(dot4, &ways[..2]) == expected[..2], "floats against dot4I8Packed");
}

/// What real GPUs run: several threads a row and a tree of barriers.
#[test]
fn the_hardware_geometry_gives_the_same_bits_at_any_width_and_passes_the_self_test() {
    for arithmetic in [Arithmetic::F32, Arithmetic::Q8] {
        let gpu = device::gpu_with(Some(arithmetic), Some(Geometry::HARDWARE));
        same_bits_at_any_width(&gpu, &[Layout::Q4, Layout::Q6K, Layout::F32]);
        let report = block_on(gpu.self_test(&Layout::ALL, &[])).expect("self-test");
        assert!(report.largest_difference < 1e-5, "{report:?}");
    }
}

/// Gives the bits of 16 columns of the last layout.
fn same_bits_at_any_width(gpu: &GpuExecutor, layouts: &[Layout]) -> Vec<u32> {
    let (rows, cols) = (71, 1280);
    let mut last = Vec::new();
    for &layout in layouts {
        let quantised = gpu.arithmetic() == Arithmetic::Q8 && layout.is_quantised();
        let mut noise = Noise::new(11);
        let mark = gpu.mark();
        let weight = matrix(gpu, &noise, layout, rows, cols, 0);
        let columns: Vec<Vec<f32>> = (0..16).map(|_| noise.floats(cols)).collect();
        let x = vector(gpu, &vec![0.0; 16 * cols], quantised);
        let out = gpu.alloc("out", 16 * rows).expect("alloc");
        let outcome = |bucket: usize, chosen: &[usize]| {
            for (slot, &column) in chosen.iter().enumerate() {
                gpu.write(x.buffer(), slot * x.words(cols), &vector_words(&columns[column], quantised)).expect("write");
            }
            let step = Step::Matvec {
                weight,
                x,
                out,
                out_offset: 0,
                out_stride: rows as u32,
                add: false,
                columns: Columns::All,
            };
            run(gpu, bucket, vec![step], &[], Params::chain(chosen.len(), 0, 0));
            read(gpu, out, chosen.len() * rows)
        };
        let all: Vec<usize> = (0..16).collect();
        let widest = outcome(16, &all);
        for bucket in COLUMN_BUCKETS {
            // Whole and partly filled passes, and each column in another place than it had.
            for chosen in all.chunks(bucket).chain([&[13, 2, 7][..bucket.min(3)]]) {
                let bits = outcome(bucket, chosen);
                for (bits, &column) in bits.chunks_exact(rows).zip(chosen) {
                    let expected = &widest[column * rows..][..rows];
                    assert_eq!(bits, expected, "{} column {column} at {bucket}", layout.name());
                }
            }
        }
        gpu.release(mark);
        last = widest;
    }
    last
}

#[test]
fn attention_gives_a_column_the_same_bits_at_any_width_and_in_a_tree() {
    let gpu = |geometry| device::gpu_with(None, Some(geometry));
    same_attention_at_any_width(&gpu(Geometry::HARDWARE));
    let (each, widest) = (gpu(Geometry::SOFTWARE), gpu(Geometry::SOFTWARE));
    widest.use_widest_only("attention".to_owned(), "this test".to_owned());
    assert!(same_attention_at_any_width(&widest) == same_attention_at_any_width(&each), "a text for all widths");
}

/// A chain of 16 tokens, then the same 16 in passes of 1, 2, 4, 8: queries, cache and attention have the same bits. Gives
/// those of the chain.
fn same_attention_at_any_width(gpu: &GpuExecutor) -> Vec<Vec<u32>> {
    let mut chains = Vec::new();
    for (head_dim, window, norm) in [(64, 0, false), (256, 70, true)] {
        let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim, capacity: 300, window, scale: 0.125 };
        let base = 120;
        let stride = ((shape.heads + 2 * shape.kv_heads) * head_dim) as usize;
        let row = (shape.heads * head_dim) as usize;
        let inputs = Noise::new(3).floats(16 * stride);
        // Columns by their input, run in passes of the given sizes with the given ancestors.
        let outcome = |passes: &[(Vec<usize>, Params)]| -> Vec<Vec<u32>> {
            let mark = gpu.mark();
            let tensors = Attention::new(gpu, Noise::new(5), shape, false);
            let mut outcome = Vec::new();
            for (inputs_of, params) in passes {
                for (column, &input) in inputs_of.iter().enumerate() {
                    let input = bytemuck::cast_slice(&inputs[input * stride..][..stride]);
                    gpu.write(tensors.qkv, column * stride, input).expect("write");
                }
                let mut steps = vec![tensors.rope_kv(RopePairs::Halves, norm)];
                steps.extend(tensors.attention());
                run(gpu, bucket(inputs_of.len()), steps, &[], *params);
                let bits = tensors.out(gpu);
                outcome.extend(bits.chunks_exact(row).take(inputs_of.len()).map(<[u32]>::to_vec));
            }
            gpu.release(mark);
            outcome
        };
        let chain = |inputs: &[usize], base: usize| (inputs.to_vec(), Params::chain(inputs.len(), base, 0));
        let all: Vec<usize> = (0..16).collect();
        let widest = outcome(&[chain(&all, base)]);
        for width in COLUMN_BUCKETS {
            let passes: Vec<_> = all.chunks(width).map(|part| chain(part, base + part[0])).collect();
            assert!(outcome(&passes) == widest, "passes of {width}, head_dim {head_dim}");
        }

        // 0 - 1 - 3 - 5 and 0 - 2 - 4, with 6 under 4: against the chains 0 1 3 5 and 0 2 4 6.
        let mut tree = Params::chain(7, base, 0);
        tree.ancestors[..7].copy_from_slice(&[0b1, 0b11, 0b101, 0b1011, 0b1_0101, 0b10_1011, 0b101_0101]);
        let ancestors = tree.ancestors;
        let tree = outcome(&[((0..7).collect(), tree)]);
        // The same tree in parts, and with other numbers for its nodes.
        let parts = [[4, 2, 0].as_slice(), &[1, 3], &[6], &[5]];
        let passes: Vec<_> =
            parts.iter().map(|part| (part.to_vec(), Params::tree(part, &ancestors, base, 0))).collect();
        let numbers = [0usize, 3, 7, 8, 20, 30, 31];
        let mut renumbered = Params::tree(&[0; 7], &ancestors, base, 0);
        for (column, node) in numbers.into_iter().enumerate() {
            renumbered.nodes[column] = node as u32;
            let path = (0..7).filter(|ancestor| ancestors[column] >> ancestor & 1 == 1);
            renumbered.ancestors[column] = path.map(|ancestor| 1 << numbers[ancestor]).sum();
        }
        for (bits, column) in outcome(&passes).iter().zip(parts.concat()) {
            assert!(*bits == tree[column], "column {column} of the tree in parts, head_dim {head_dim}");
        }
        assert!(outcome(&[((0..7).collect(), renumbered)]) == tree, "renumbered, head_dim {head_dim}");
        for path in [[0, 1, 3, 5], [0, 2, 4, 6]] {
            let alone = outcome(&[chain(&path, base)]);
            for (bits, column) in alone.iter().zip(path) {
                assert!(*bits == tree[column], "column {column} of the tree, head_dim {head_dim}");
            }
        }
        chains.extend(widest);
    }
    chains
}

#[test]
fn a_layout_may_use_its_widest_kernel_for_every_width() {
    let (rows, cols) = (40, 512);
    let noise = Noise::new(9);
    let bits = |widest: bool| {
        let gpu = gpu();
        if widest {
            gpu.use_widest_only("matvec Q4".to_owned(), "this test".to_owned());
            assert!(gpu.kernel_choices().iter().any(|choice| choice.reason.contains("this test")));
        }
        let weight = matrix(&gpu, &noise, Layout::Q4, rows, cols, 0);
        let out = gpu.alloc("out", MAX_COLUMNS * rows).expect("alloc");
        let step = |x| Step::Matvec {
            weight,
            x,
            out,
            out_offset: 0,
            out_stride: rows as u32,
            add: false,
            columns: Columns::All,
        };
        if widest {
            // Room for one column is too little: the kernel reads sixteen.
            let narrow = Vector::F32(upload_floats(&gpu, &noise.clone().floats(cols)));
            let plan = Plan { label: "narrow".to_owned(), bucket: 1, steps: vec![step(narrow)] };
            assert!(gpu.prepare(plan).is_err());
        }
        let x = vector(&gpu, &noise.clone().floats(MAX_COLUMNS * cols), false);
        run(&gpu, 1, vec![step(x)], &[], Params::chain(1, 0, 0));
        read(&gpu, out, rows)
    };
    assert_eq!(bits(true), bits(false));
}

#[test]
fn self_test_passes_for_every_layout_and_is_quick() {
    let gpu = gpu();
    let mark = gpu.mark();
    let report = block_on(gpu.self_test(&Layout::ALL, &[])).expect("self-test");
    assert!(report.widest_only.is_empty(), "on the adapters that were seen, all widths agree: {report:?}");
    assert_eq!(report.same_bits.len(), Layout::ALL.len() + 1, "attention too: {report:?}");
    assert!(report.largest_difference > 0.0 && report.largest_difference < 1e-5, "{report:?}");
    assert_eq!(gpu.mark(), mark, "the self-test leaves nothing behind");
    println!("{report:?}");
    for choice in gpu.kernel_choices() {
        println!("{choice:?}");
    }
    println!("{}", gpu.fingerprint());
}

#[test]
fn a_submission_is_one_submit_and_one_map() {
    let gpu = gpu();
    let mut noise = Noise::new(1);
    let logits = upload_floats(&gpu, &noise.floats(1000));
    let history = gpu.alloc("history", 64).expect("alloc");
    let step = Step::Sample { logits, history, vocabulary: 1000 };
    let plan = gpu.prepare(Plan { label: "sample".to_owned(), bucket: 1, steps: vec![step] }).expect("prepare");
    let before = gpu.counters();
    assert_eq!((before.submits, before.maps), (0, 0));
    assert!(before.allocated_bytes >= 4 * 1000);
    let runs = (0..5).map(|i| {
        let mut params = Params::chain(1, i, i);
        (params.logit_cols, params.sample_at) = (1, 100 + i as u32);
        (plan, params)
    });
    let submission = Submission { tokens: vec![(0, vec![1; 5])], runs: runs.collect(), read: (100, 5) };
    let ticket = gpu.submit(submission).expect("submit");
    let tokens = block_on(gpu.finish(ticket)).expect("finish");
    assert!(tokens.iter().all(|&token| token == tokens[0] && token < 1000), "{tokens:?}");
    let after = gpu.counters();
    assert_eq!((after.submits, after.maps), (1, 1));
    let ticket = gpu.submit(Submission { runs: vec![], ..Submission::default() }).expect("submit");
    assert!(block_on(gpu.finish(ticket)).expect("finish").is_empty());
    assert_eq!((gpu.counters().submits, gpu.counters().maps), (2, 1), "nothing read back, nothing mapped");
}

#[test]
fn a_submission_that_nobody_waits_for_is_over_with_the_next() {
    let gpu = gpu();
    let submit = |token: u32| {
        gpu.submit(Submission { tokens: vec![(0, vec![token])], read: (0, 1), ..Submission::default() })
            .expect("submit")
    };
    for token in 0..3 {
        let (given_up, ticket) = (submit(7), submit(token));
        assert_eq!(block_on(gpu.finish(ticket)).expect("finish"), [token]);
        assert_eq!(block_on(gpu.finish(given_up)).expect_err("over").code(), "gpu");
    }
}

#[test]
fn more_runs_than_slots_take_more_submits_and_stay_in_order() {
    let gpu = gpu();
    let table: Vec<f32> = (0..200 * 32).map(|i| (i / 32) as f32).collect();
    let weight = MatrixPart {
        layout: Layout::F32,
        quants: upload_floats(&gpu, &table),
        scales: upload(&gpu, &[0]),
        first_row: 0,
        rows: 200,
        cols: 32,
    };
    let history = gpu.alloc("history", 256).expect("alloc");
    let out = gpu.alloc("out", 32).expect("alloc");
    let step = Step::Embed { weight, history, out, scale: 1.0 };
    let plan = gpu.prepare(Plan { label: "embed".to_owned(), bucket: 1, steps: vec![step] }).expect("prepare");
    let tokens: Vec<u32> = (0..150).rev().collect();
    let runs = (0..150).map(|i| (plan, Params::chain(1, i, i))).collect();
    let submission = Submission { tokens: vec![(0, tokens.clone())], runs, read: (0, 150) };
    let ticket = gpu.submit(submission).expect("submit");
    assert_eq!(block_on(gpu.finish(ticket)).expect("finish"), tokens);
    assert_eq!(read(&gpu, history, 150), tokens);
    assert_eq!(gpu.counters().submits, 4, "three for the runs, one for the read of the history");
}

/// What was measured once is not measured again on the same device, and what could not have been is not taken.
#[test]
fn cuts_are_measured_once_a_device() {
    let shapes = [(Layout::Q4, 512, 256), (Layout::Q8, 1024, 256), (Layout::Q4, 64, 64)];
    let tuned = |arithmetic: Arithmetic, known: Option<&KnownCuts>| {
        let gpu = device::gpu_with(Some(arithmetic), None);
        let reports = block_on(gpu.tune(&shapes, known)).expect("tuned");
        let timed = reports.iter().filter(|report| !report.candidates.is_empty()).count();
        if known.is_none() {
            block_on(gpu.self_test(&[Layout::Q4, Layout::Q8], &[]))
                .expect("what was chosen computes what the host does");
        }
        (timed, gpu.known_cuts())
    };
    let (timed, cuts) = tuned(Arithmetic::Q8, None);
    assert!((1..=2).contains(&timed), "a class each where there is time, and none for what is small: {timed}");
    assert_eq!(tuned(Arithmetic::Q8, Some(&cuts)), (0, cuts.clone()));
    assert!(tuned(Arithmetic::F32, Some(&cuts)).0 > 0, "other arithmetic, other cuts");
    let json = serde_json::to_string(&cuts).expect("JSON");
    let read: KnownCuts = serde_json::from_str(&json).expect("what was written");
    assert_eq!(read, cuts);
    let rows = "\"rows\":";
    let at = json.find(rows).expect("a cut") + rows.len();
    let damaged = format!("{}7777{}", &json[..at], &json[at + 1..]);
    let damaged: KnownCuts = serde_json::from_str(&damaged).expect("numbers all the same");
    assert_ne!(damaged, cuts);
    assert_ne!(tuned(Arithmetic::Q8, Some(&damaged)).1, damaged, "nobody works on 7777 rows a thread");
}

#[test]
fn what_does_not_fit_is_refused_with_its_numbers() {
    // Textures are what software wants.
    let gpu = device::gpu_with(Some(Arithmetic::Q8), Some(Geometry::SOFTWARE));
    let x = gpu.alloc("x", 128).expect("alloc");
    let plan = |step: Step| gpu.prepare(Plan { label: "wrong".to_owned(), bucket: 2, steps: vec![step] });
    let activation = |width, out| Step::Activation { x, out: Vector::F32(out), width, gate: Gate::Silu };
    let out = gpu.alloc("out", 64).expect("alloc");
    plan(activation(32, out)).expect("fits");
    let [texture, scales] = gpu.alloc_matrix("matrix", Layout::Q4, 8, 64).expect("alloc");
    assert!(block_on(gpu.read(texture, 0, 1)).is_err(), "a texture cannot be read");
    let part = MatrixPart { layout: Layout::Q4, quants: texture, scales, first_row: 0, rows: 8, cols: 64 };
    assert!(gpu.write_matrix(&part, 2, &[0; 8], &[0; 2]).is_err(), "rows come in fours");
    assert!(gpu.write_matrix(&part, 8, &[0; 32], &[0; 8]).is_err(), "beyond the end");
    for (step, expected) in [
        (activation(64, out), "x (x) has 128 words, expected 256"),
        (activation(17, out), "width is 17, expected a multiple of 32"),
        (activation(0, out), "width is 0"),
        (activation(32, x), "the same buffer"),
        (activation(32, BufferId(99)), "no buffer 99"),
        (activation(32, texture), "wrong kind of memory"),
    ] {
        let error = plan(step).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let ok = plan(activation(32, out)).expect("fits");
    let submit = |params: Params| gpu.submit(Submission { runs: vec![(ok, params)], ..Submission::default() });
    let mut loop_in_tree = Params::chain(2, 0, 0);
    loop_in_tree.ancestors[1] = 0b101;
    let mut twice = Params::chain(2, 0, 0);
    (twice.ancestors[1], twice.nodes[1]) = (0b1, 0);
    let mut too_many = Params::chain(1, 0, 0);
    too_many.nodes[0] = 32;
    for (params, expected) in [
        (Params::chain(3, 0, 0), "live_cols is 3"),
        (Params::chain(2, 0, 4095), "token_at 4095"),
        (Params::tree(&[31], &[1 << 31 | 1; 32], 0, 4070), "token_at 4070"),
        (loop_in_tree, "ancestors of column 1"),
        (twice, "node 0 stands in more than one column"),
        (too_many, "ancestors of column 0, node 32"),
    ] {
        let error = submit(params).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let most = gpu.limits().max_binding_bytes;
    let error = gpu.alloc("huge", (most / 4 + 1) as usize).expect_err("too large");
    assert!(matches!(&error, Error::OutOfMemory { plan, .. } if plan.contains("huge")), "{error}");
    assert!(gpu.write(x, 124, &[0; 5]).is_err());
    // None of this harmed the device.
    let ticket = submit(Params::chain(2, 0, 0)).expect("submit");
    block_on(gpu.finish(ticket)).expect("finish");
}

#[test]
fn a_lost_device_says_so_and_a_new_one_works() {
    let first = gpu();
    let x = first.alloc("x", 64).expect("alloc");
    let step =
        Step::Activation { x, out: Vector::F32(first.alloc("out", 32).expect("alloc")), width: 32, gate: Gate::Silu };
    let plan = first.prepare(Plan { label: "p".to_owned(), bucket: 1, steps: vec![step] }).expect("prepare");
    let submission = Submission { runs: vec![(plan, Params::chain(1, 0, 0))], read: (0, 1), ..Submission::default() };
    let in_flight = first.submit(submission.clone()).expect("submit");
    first.lose_device();
    let lost = |error: Error| assert!(matches!(error, Error::DeviceLost { .. }), "{error:?}");
    lost(block_on(first.finish(in_flight)).expect_err("lost while in flight"));
    lost(first.submit(submission.clone()).expect_err("lost"));
    lost(first.alloc("more", 1).expect_err("lost"));
    lost(block_on(first.read(x, 0, 1)).expect_err("lost"));
    drop(first);
    let second = gpu();
    second.alloc("x", 64).expect("a new device works");
}

#[test]
fn hardware_is_never_a_software_adapter() {
    drop(gpu());
    match block_on(GpuExecutor::request(AdapterChoice::Hardware)) {
        Ok(executor) => assert!(!executor.device().software),
        Err(error) => assert!(matches!(&error, Error::NoAdapter { reason } if reason.contains("software")), "{error}"),
    }
    let adapters = block_on(foredraft::gpu::adapters());
    assert!(!adapters.is_empty());
    println!("{}", serde_json::to_string_pretty(&adapters).expect("serialises"));
}
