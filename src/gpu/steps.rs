//! From a step of a plan to a kernel call: which kernel, which buffers of what size, the fixed values, the grid.

use super::kernels::{self, Geometry, KernelKey, MatvecKey};
use crate::plan::{AttentionShape, BufferId, Columns, MAX_COLUMNS, MatrixPart, Params, RopePairs, Step, Vector};
use crate::weights::format::BLOCK;

/// Workgroups that WebGPU promises in one dimension.
const MAX_WORKGROUPS: u32 = 65_535;

/// What decides how steps are cut: the device's geometry and where its buffers lie.
pub(super) struct Cut<'a> {
    pub(super) geometry: Geometry,
    /// The cut of a matrix.
    pub(super) matvec: Box<dyn Fn(&MatrixPart) -> Geometry + 'a>,
    /// Whether so many words of a buffer can be bound as a uniform.
    pub(super) uniform: Box<dyn Fn(BufferId, u64) -> bool + 'a>,
    /// Whether a matrix lies in textures.
    pub(super) texture: Box<dyn Fn(&MatrixPart) -> bool + 'a>,
}

/// A buffer that a kernel is given, in the order of the kernel's bindings.
pub(super) struct Use {
    pub(super) name: &'static str,
    pub(super) buffer: BufferId,
    /// Words that the kernel may touch.
    pub(super) words: u64,
}

/// A step in the terms of the GPU.
pub(super) struct Lowered {
    pub(super) key: KernelKey,
    pub(super) uses: Vec<Use>,
    /// Fields of the kernel's `Fixed` struct.
    pub(super) fixed: Vec<(&'static str, u32)>,
    pub(super) grid: Grid,
    /// Which count of columns the grid follows.
    pub(super) columns: Columns,
    /// Positions that history, rotation table or cache have room for.
    pub(super) positions: u64,
}

/// Shape of a grid; what varies is the number of live columns and, for attention, of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grid {
    /// (columns, rows)
    ColumnsBy(u32),
    /// (groups, columns)
    ByColumns(u32),
    /// (chunks in use, KV heads, rows): KV heads, query heads of each, rows of a workgroup
    Chunks(u32, u32, u32),
    /// A thread for so many columns, each of so many groups of heads and each chunk in use, workgroups folded over x and y
    ChunkThreads(u32, u32),
    /// Workgroups folded over x and y.
    Folded(u32),
}

impl Grid {
    /// Workgroups of a run.
    pub(super) fn size(self, columns: u32, params: &Params) -> (u32, u32, u32) {
        match self {
            Grid::ColumnsBy(rows) => (columns, rows, 1),
            Grid::ByColumns(groups) => (groups, columns, 1),
            Grid::Chunks(kv_heads, per_kv, rows) => (chunks(params), kv_heads, (columns * per_kv).div_ceil(rows)),
            Grid::ChunkThreads(together, groups) => {
                folded((chunks(params) * groups * columns.div_ceil(together)).div_ceil(kernels::ATTENTION_WORKGROUP))
            }
            Grid::Folded(groups) => folded(groups),
        }
    }

    fn fits(self) -> bool {
        match self {
            Grid::ColumnsBy(n) | Grid::ByColumns(n) | Grid::Chunks(n, ..) => n <= MAX_WORKGROUPS,
            Grid::Folded(n) | Grid::ChunkThreads(_, n) => n.div_ceil(MAX_WORKGROUPS) <= MAX_WORKGROUPS,
        }
    }
}

/// Chunks that a run uses.
fn chunks(params: &Params) -> u32 {
    let deepest = (0..params.live_cols as usize).map(|column| params.depth(column)).max().unwrap_or(0);
    (params.base + deepest + 1).div_ceil(crate::plan::KV_CHUNK as u32)
}

fn folded(groups: u32) -> (u32, u32, u32) {
    let y = groups.div_ceil(MAX_WORKGROUPS);
    (groups.div_ceil(y), y, 1)
}

/// Lowers a step for plans of `bucket` columns. The message says what is wrong with the step.
pub(super) fn lower(step: &Step, bucket: u32, cut: &Cut<'_>) -> Result<Lowered, String> {
    let geometry = cut.geometry;
    let lowered = match step {
        Step::Embed { weight, history, out, scale } => embed(weight, *history, *out, *scale, bucket, cut)?,
        Step::RmsNorm { x, weight, out, width, eps, add, columns } => Lowered {
            key: KernelKey::RmsNorm(quantises(*out, *add)?),
            uses: vec![
                // The columns whose logits are wanted may stand anywhere in a pass.
                Use::of("x", *x, &[if *columns == Columns::Logits { MAX_COLUMNS as u32 } else { bucket }, *width]),
                Use::of("weight", *weight, &[*width]),
                Use::vector("out", *out, bucket, *width),
            ],
            fixed: vec![
                ("width", whole_blocks(*width)?),
                ("eps", eps.to_bits()),
                ("add", (*add).into()),
                ("logits", (*columns == Columns::Logits).into()),
            ],
            grid: Grid::ColumnsBy(1),
            columns: *columns,
            positions: u64::MAX,
        },
        Step::Matvec { weight, x, out, out_offset, out_stride, add, columns } => {
            let mut lowered = matvec(weight, *x, *out, *out_offset, *out_stride, bucket, cut)?;
            lowered.fixed.push(("add", (*add).into()));
            lowered.fixed.push(("logits", (*columns == Columns::Logits).into()));
            lowered.columns = *columns;
            lowered
        }
        Step::RopeKv { qkv, k_cache, v_cache, rope, qk_norm, shape, pairs, eps } => {
            let heads = check(shape)?;
            let cache = [shape.kv_heads, shape.capacity, shape.head_dim / 2];
            let mut uses = vec![
                Use::of("qkv", *qkv, &[bucket, heads, shape.head_dim]),
                Use::of("k_cache", *k_cache, &cache),
                Use::of("v_cache", *v_cache, &cache),
                Use::of("rope", *rope, &[shape.capacity, shape.head_dim]),
            ];
            uses.extend(qk_norm.map(|weights| Use::of("qk_norm", weights, &[2, shape.head_dim])));
            Lowered {
                key: KernelKey::RopeKv(qk_norm.is_some()),
                uses,
                fixed: vec![
                    ("heads", shape.heads),
                    ("kv_heads", shape.kv_heads),
                    ("head_dim", shape.head_dim),
                    ("capacity", shape.capacity),
                    ("halves", (*pairs == RopePairs::Halves).into()),
                    ("eps", eps.to_bits()),
                ],
                grid: Grid::ColumnsBy(heads),
                columns: Columns::All,
                positions: shape.capacity.into(),
            }
        }
        Step::Attention { qkv, k_cache, v_cache, partial, shape } => {
            let heads = check(shape)?;
            let uniform = geometry.uniform && (cut.uniform)(*qkv, u64::from(bucket * heads * shape.head_dim));
            let per_kv = shape.heads / shape.kv_heads;
            let attention = geometry.attention.of(bucket, per_kv);
            let cache = [shape.kv_heads, shape.capacity, shape.head_dim / 2];
            Lowered {
                key: KernelKey::Attention(attention, uniform),
                uses: vec![
                    Use::of("qkv", *qkv, &[bucket, heads, shape.head_dim]),
                    Use::of("k_cache", *k_cache, &cache),
                    Use::of("v_cache", *v_cache, &cache),
                    Use::of("partial", *partial, &[bucket, shape.heads, shape.chunks(), shape.head_dim + 4]),
                ],
                fixed: vec![
                    ("heads", shape.heads),
                    ("kv_heads", shape.kv_heads),
                    ("head_dim", shape.head_dim),
                    ("capacity", shape.capacity),
                    ("chunks", shape.chunks()),
                    ("window", shape.window),
                    ("scale", shape.scale.to_bits()),
                ],
                grid: match attention.alone {
                    true => Grid::ChunkThreads(attention.columns, shape.kv_heads * per_kv.div_ceil(attention.rows)),
                    false => Grid::Chunks(shape.kv_heads, per_kv, attention.rows),
                },
                columns: Columns::All,
                positions: shape.capacity.into(),
            }
        }
        Step::AttentionCombine { partial, out, shape } => {
            check(shape)?;
            if matches!(out, Vector::Q8(_)) {
                whole_blocks(shape.head_dim)?;
            }
            let key = KernelKey::attention_combine(quantises(*out, false)?, geometry);
            let blocks = shape.heads * shape.head_dim / BLOCK as u32;
            Lowered {
                key,
                uses: vec![
                    Use::of("partial", *partial, &[bucket, shape.heads, shape.chunks(), shape.head_dim + 4]),
                    Use::vector("out", *out, bucket, shape.heads * shape.head_dim),
                ],
                fixed: vec![
                    ("heads", shape.heads),
                    ("head_dim", shape.head_dim),
                    ("chunks", shape.chunks()),
                    ("window", shape.window),
                ],
                grid: Grid::ByColumns(match key {
                    KernelKey::AttentionCombine(_, true) => blocks.div_ceil(kernels::COMBINE_WORKGROUP),
                    _ => shape.heads,
                }),
                columns: Columns::All,
                positions: shape.capacity.into(),
            }
        }
        Step::Activation { x, out, width, gate } => Lowered {
            key: KernelKey::activation(*gate, quantises(*out, false)?),
            uses: vec![Use::of("x", *x, &[bucket, 2, *width]), Use::vector("out", *out, bucket, *width)],
            fixed: vec![("width", whole_blocks(*width)?)],
            grid: Grid::ByColumns((width / BLOCK as u32).div_ceil(kernels::ACTIVATION_WORKGROUP)),
            columns: Columns::All,
            positions: u64::MAX,
        },
        Step::Sample { logits, history, vocabulary } => Lowered {
            key: KernelKey::Sample(geometry.sample_threads),
            uses: vec![
                Use::of("logits", *logits, &[bucket, positive(*vocabulary, "vocabulary")?]),
                Use::of("tokens", BufferId::TOKENS, &[crate::plan::TOKENS_WORDS as u32]),
                Use::of("history", *history, &[1]),
                Use::of("bias", BufferId::BIAS, &[2, crate::sampling::MAX_LOGIT_BIAS as u32]),
            ],
            fixed: vec![("vocabulary", *vocabulary)],
            grid: Grid::ColumnsBy(1),
            columns: Columns::Logits,
            positions: u64::MAX,
        },
        Step::RowStats { logits, vocabulary } => Lowered {
            key: KernelKey::RowStats(geometry.sample_threads),
            uses: vec![
                Use::of("logits", *logits, &[bucket, positive(*vocabulary, "vocabulary")?]),
                Use::of("tokens", BufferId::TOKENS, &[crate::plan::TOKENS_WORDS as u32]),
            ],
            fixed: vec![("vocabulary", *vocabulary)],
            grid: Grid::ColumnsBy(1),
            columns: Columns::Logits,
            positions: u64::MAX,
        },
        Step::Compact { buffer, rows, capacity, words } => {
            let row_words =
                positive(*rows, "rows")?.checked_mul(positive(*words, "words")?).ok_or("rows * words overflows")?;
            Lowered {
                key: KernelKey::Compact,
                uses: vec![Use::of("cache", *buffer, &[*rows, *capacity, *words])],
                fixed: vec![("rows", *rows), ("capacity", *capacity), ("words", *words)],
                grid: Grid::Folded(row_words.div_ceil(kernels::COMPACT_WORKGROUP)),
                columns: Columns::All,
                positions: (*capacity).into(),
            }
        }
    };
    if lowered.grid.fits() { Ok(lowered) } else { Err(format!("grid {:?} is too large", lowered.grid)) }
}

impl Use {
    fn of(name: &'static str, buffer: BufferId, shape: &[u32]) -> Use {
        let words = shape.iter().fold(1u64, |words, &n| words.saturating_mul(n.into()));
        Use { name, buffer, words }
    }

    fn vector(name: &'static str, vector: Vector, columns: u32, width: u32) -> Use {
        Use { name, buffer: vector.buffer(), words: u64::from(columns) * vector.words(width as usize) as u64 }
    }
}

/// Whether a kernel writes a quantised vector, which cannot be added to.
fn quantises(out: Vector, add: bool) -> Result<bool, String> {
    match (out, add) {
        (Vector::Q8(_), true) => Err("a quantised vector cannot be added to".to_owned()),
        (Vector::Q8(_), false) => Ok(true),
        (Vector::F32(_), _) => Ok(false),
    }
}

fn whole_blocks(width: u32) -> Result<u32, String> {
    match positive(width, "width")?.is_multiple_of(BLOCK as u32) {
        true => Ok(width),
        false => Err(format!("width is {width}, expected a multiple of {BLOCK}")),
    }
}

fn positive(value: u32, name: &str) -> Result<u32, String> {
    if value > 0 { Ok(value) } else { Err(format!("{name} is 0")) }
}

fn embed(
    weight: &MatrixPart,
    history: BufferId,
    out: BufferId,
    scale: f32,
    bucket: u32,
    cut: &Cut<'_>,
) -> Result<Lowered, String> {
    let blocks = blocks(weight)?;
    let [quants, scales] = matrix(weight);
    Ok(Lowered {
        key: KernelKey::Embed(weight.layout, (cut.texture)(weight)),
        uses: vec![
            quants,
            scales,
            Use::of("tokens", BufferId::TOKENS, &[crate::plan::TOKENS_WORDS as u32]),
            Use::of("history", history, &[1]),
            Use::of("out", out, &[bucket, weight.cols]),
        ],
        fixed: vec![
            ("first_row", weight.first_row),
            ("rows", weight.rows),
            ("blocks", blocks),
            ("scale", scale.to_bits()),
        ],
        grid: Grid::ByColumns(blocks.div_ceil(kernels::EMBED_WORKGROUP)),
        columns: Columns::All,
        positions: u64::MAX,
    })
}

fn matvec(
    weight: &MatrixPart,
    x: Vector,
    out: BufferId,
    out_offset: u32,
    out_stride: u32,
    bucket: u32,
    cut: &Cut<'_>,
) -> Result<Lowered, String> {
    let blocks = blocks(weight)?;
    let quantised = matches!(x, Vector::Q8(_));
    if quantised && !weight.layout.is_quantised() {
        return Err(format!("a matrix in {} with a quantised vector", weight.layout.name()));
    }
    let vector = Use::vector("x", x, bucket, weight.cols);
    let geometry = (cut.matvec)(weight);
    let key = MatvecKey {
        layout: weight.layout,
        cols: bucket,
        quantised,
        texture: (cut.texture)(weight),
        uniform: geometry.uniform && (cut.uniform)(vector.buffer, vector.words),
        geometry,
    };
    let [quants, scales] = matrix(weight);
    let out_at = out_offset.checked_add(weight.first_row).ok_or("out_offset + first_row overflows")?;
    let end = u64::from(out_at) + u64::from(weight.rows);
    if end > out_stride.into() {
        return Err(format!("rows end at {end}, a column of out has {out_stride}"));
    }
    Ok(Lowered {
        key: KernelKey::Matvec(key),
        uses: vec![quants, scales, vector, Use::of("out", out, &[bucket, out_stride])],
        fixed: vec![("rows", weight.rows), ("blocks", blocks), ("out_at", out_at), ("out_stride", out_stride)],
        grid: Grid::Folded(weight.rows.div_ceil(geometry.rows_per_workgroup())),
        columns: Columns::All,
        positions: u64::MAX,
    })
}

fn matrix(part: &MatrixPart) -> [Use; 2] {
    let weights = u64::from(part.rows) * u64::from(part.cols);
    let blocks = weights / BLOCK as u64;
    let (scale_words, sharing) = part.layout.scale_words();
    [
        Use { name: "quants", buffer: part.quants, words: blocks.saturating_mul(part.layout.quant_words() as u64) },
        Use { name: "scales", buffer: part.scales, words: (blocks / sharing as u64 * scale_words as u64).max(1) },
    ]
}

/// Blocks in a row.
fn blocks(part: &MatrixPart) -> Result<u32, String> {
    let unit = (BLOCK * part.layout.scale_words().1) as u32;
    if part.rows == 0 || part.cols == 0 || !part.cols.is_multiple_of(unit) {
        return Err(format!(
            "matrix is {} x {}, expected at least a row and columns in multiples of {unit} for {}",
            part.rows,
            part.cols,
            part.layout.name()
        ));
    }
    if part.first_row.checked_add(part.rows).is_none() {
        return Err("first_row + rows overflows".to_owned());
    }
    Ok(part.cols / BLOCK as u32)
}

/// Query, key and value heads together, of a shape that the kernels can do.
fn check(shape: &AttentionShape) -> Result<u32, String> {
    let AttentionShape { heads, kv_heads, head_dim, capacity, .. } = *shape;
    if kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) || heads > 4096 {
        return Err(format!("{heads} heads over {kv_heads} KV heads"));
    }
    if head_dim == 0 || !head_dim.is_multiple_of(16) || head_dim > kernels::MAX_HEAD_DIM {
        return Err(format!("head_dim is {head_dim}, expected a multiple of 16, at most {}", kernels::MAX_HEAD_DIM));
    }
    if capacity == 0 || shape.chunks() > MAX_WORKGROUPS {
        return Err(format!("capacity is {capacity}"));
    }
    Ok(heads + 2 * kv_heads)
}
