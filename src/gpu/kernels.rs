//! The kernels: their texts, the permutations there are of each, and what the host must know of them, read from the text.

use super::preprocess::{Defines, preprocess};
use crate::plan::{Gate, KV_CHUNK, MAX_COLUMNS, ROW_STATS_WORDS, ROW_UNIT, TOP, UNIFORM_WORDS};
use crate::weights::decode::LEAST;
use crate::weights::format::Layout;

macro_rules! kernels {
    ($($variant:ident $name:literal),*) => {
        /// A kernel file.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "named as the steps of the plan")]
        pub enum Kernel { $($variant),* }

        impl Kernel {
            /// Every kernel.
            pub const ALL: &[Kernel] = &[$(Kernel::$variant),*];

            /// File name without its ending.
            pub const fn name(self) -> &'static str {
                match self { $(Kernel::$variant => $name),* }
            }

            const fn source(self) -> &'static str {
                match self { $(Kernel::$variant => include_str!(concat!("../../shaders/", $name, ".wgsl"))),* }
            }
        }
    };
}

kernels!(
    Embed "embed", RmsNorm "rms_norm", Matvec "matvec", RopeKv "rope_kv", Attention "attention",
    AttentionCombine "attention_combine", Activation "activation", Sample "sample",
    RowStats "row_stats", Compact "compact"
);

/// The number after `marker` in a shader's text, at compile time, so that host and shader cannot drift apart.
const fn u32_after(text: &str, marker: &str) -> u32 {
    let (text, marker) = (text.as_bytes(), marker.as_bytes());
    let mut at = 0;
    while at + marker.len() < text.len() {
        let mut same = 0;
        while same < marker.len() && text[at + same] == marker[same] {
            same += 1;
        }
        if same == marker.len() {
            let mut value = 0;
            let mut digit = at + same;
            while digit < text.len() && text[digit].is_ascii_digit() {
                value = value * 10 + (text[digit] - b'0') as u32;
                digit += 1;
            }
            assert!(digit > at + same, "no number after the marker");
            return value;
        }
        at += 1;
    }
    panic!("the shader lacks the marker")
}

/// Blocks of 32 weights that one workgroup of `embed` decodes.
pub(super) const EMBED_WORKGROUP: u32 = u32_after(Kernel::Embed.source(), "const WORKGROUP: u32 = ");
/// Blocks of 32 elements that one workgroup of `activation` computes.
pub(super) const ACTIVATION_WORKGROUP: u32 = u32_after(Kernel::Activation.source(), "const WORKGROUP: u32 = ");
/// Words of a slot that one workgroup of `compact` moves.
pub(super) const COMPACT_WORKGROUP: u32 = u32_after(Kernel::Compact.source(), "const WORKGROUP: u32 = ");
/// Largest head that the attention kernels have room for.
pub(super) const MAX_HEAD_DIM: u32 = u32_after(Kernel::AttentionCombine.source(), "const MAX_HEAD_DIM: u32 = ");
/// Threads of a workgroup of `attention_combine`, each a block of 32 elements where they work alone.
pub(super) const COMBINE_WORKGROUP: u32 = u32_after(Kernel::AttentionCombine.source(), "const WORKGROUP: u32 = ");
const QUANTISE: &str = include_str!("../../shaders/shared/quantise.wgsl");
const LAYOUTS: &str = include_str!("../../shaders/shared/layouts.wgsl");
/// Texels of a line of the textures that matrices lie in.
pub(super) const TEXTURE_WIDTH: u32 = u32_after(LAYOUTS, "const TEXTURE_WIDTH: u32 = ");
/// Rows that lie together there, and threads that read them.
pub(super) const TEXTURE_GROUP: usize = u32_after(LAYOUTS, "const GROUP: u32 = ") as usize;
pub(super) const TEXTURE_EIGHT: usize = u32_after(LAYOUTS, "const EIGHT: u32 = ") as usize;

/// Threads of a workgroup of `attention` where each works alone.
pub(super) const ATTENTION_WORKGROUP: u32 = u32_after(Kernel::Attention.source(), "const WORKGROUP: u32 = ");

const _: () = {
    let steps = [AttentionCut::SOFTWARE.unroll as usize, AttentionCut::HARDWARE.unroll as usize];
    assert!(KV_CHUNK.is_multiple_of(steps[0]) && KV_CHUNK.is_multiple_of(steps[1]), "attention.wgsl takes whole steps");
    assert!(ROW_UNIT.is_multiple_of(TEXTURE_GROUP), "layouts.wgsl");
    assert!(u32_after(Kernel::Attention.source(), "const KV_CHUNK: u32 = ") as usize == KV_CHUNK, "attention.wgsl");
    assert!(
        u32_after(Kernel::Attention.source(), "const MAX_COLUMNS: u32 = ") as usize == MAX_COLUMNS,
        "attention.wgsl"
    );
    assert!(u32_after(Kernel::AttentionCombine.source(), "const KV_CHUNK: u32 = ") as usize == KV_CHUNK, "combine");
    assert!((127 - u32_after(QUANTISE, "const LEAST: f32 = 0x1p-")) << 23 == LEAST.to_bits(), "quantise.wgsl");
    assert!(u32_after(Kernel::RmsNorm.source(), "const WORKGROUP: u32 = ") == 32, "rms_norm.wgsl adds as many sums");
    let recent = u32_after(Kernel::Sample.source(), "const MAX_RECENT: u32 = ");
    assert!(recent as usize == crate::sampling::MAX_PENALTY_TOKENS, "sample.wgsl");
    assert!(u32_after(Kernel::RowStats.source(), "const TOP: u32 = ") as usize == TOP, "row_stats.wgsl");
    assert!(u32_after(Kernel::RowStats.source(), "const WORDS: u32 = ") as usize == ROW_STATS_WORDS, "row_stats.wgsl");
    let candidates = u32_after(Kernel::Sample.source(), "const CANDIDATES: u32 = ");
    assert!(candidates * Geometry::SOFTWARE.sample_threads >= recent, "sample.wgsl keeps recent tokens in its scratch");
};

/// How `attention` is cut. The bits are the same for all, but that a thread that is alone may take 0 for halves below 2^-14.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct AttentionCut {
    /// Whether a thread computes a chunk on its own, or with the others of a workgroup.
    pub alone: bool,
    /// Rows, each a column and a head, that one thread or workgroup computes at most.
    pub rows: u32,
    /// Columns for which a thread that is alone loads keys and values once.
    pub columns: u32,
    /// Positions whose keys, or together whose values, a thread loads at once.
    pub unroll: u32,
}

impl AttentionCut {
    /// No barriers and nothing shared, since emulated threads wait for each other one by one; what is loaded serves the
    /// heads of a KV head, a query's elements eight positions. With 3 heads a KV head of 64 elements, 1 column after 4000
    /// tokens took llvmpipe 23 ms in 30 layers, a workgroup of 64 threads a chunk 83 ms.
    pub const SOFTWARE: AttentionCut = AttentionCut { alone: true, rows: 4, columns: 2, unroll: 8 };
    /// As many threads as there can be, and loads that do not wait for each other.
    pub const HARDWARE: AttentionCut = AttentionCut { alone: false, rows: 8, columns: 1, unroll: 8 };

    /// For so many columns and KV heads that so many heads read: what there is not would be computed for nothing.
    pub(super) fn of(self, columns: u32, per_kv: u32) -> AttentionCut {
        let (rows, columns) = (self.rows.min(per_kv), self.columns.min(columns));
        if self.alone { AttentionCut { rows, columns, ..self } } else { self }
    }
}

/// How kernels are cut; decided once a device, the same for every column count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Geometry {
    /// Threads in a workgroup of `matvec`.
    pub workgroup: u32,
    /// Threads that share a row.
    pub lanes: u32,
    /// Rows a thread works on.
    pub rows: u32,
    /// Columns up to which products of bytes are made by `dot4I8Packed`; in wider passes they are made, with the same bits, of
    /// pairs or of floats ([`Products`]).
    pub dot4: u32,
    /// Whether they are made of floats parted by masks there, without shifts, rather than as takes the fewest instructions.
    pub masks: bool,
    /// Whether matrices lie in textures where their layout allows it; `workgroup` is then 8 and `rows` a multiple of 4.
    pub texture: bool,
    /// Whether vectors that fit are bound as uniforms.
    pub uniform: bool,
    /// Threads that share a row of logits in `sample` and `row_stats`.
    pub sample_threads: u32,
    /// Of `attention`.
    pub attention: AttentionCut,
}

impl Geometry {
    /// Emulated threads: each works alone, without barriers, and re-uses what it loads over rows, since loads are what
    /// costs there. llvmpipe loads a storage buffer lane by lane through the stack, some 22 cycles a word, but gathers from
    /// uniforms and textures in a few: 30 mat-vecs of 3072 x 576 in Q4 with 1 and 8 columns took 44 and 131 ms from
    /// buffers, 23 ms with matrices in textures, 15 and 52 ms with four rows' scales in a texel and vectors as uniforms, 8 and
    /// 20 ms with neighbours' rows side by side and two products a multiplication. On SwiftShader a mat-vec of 576 x 1536 took
    /// 1.0 and 4.0 ms so, by dot4I8Packed 2.1 and 10.9 ms. Small workgroups spread small matrices over the cores and cost
    /// nothing.
    pub const SOFTWARE: Geometry = Geometry {
        workgroup: 8,
        lanes: 1,
        rows: 8,
        dot4: 0,
        masks: false,
        texture: true,
        uniform: true,
        sample_threads: 64,
        attention: AttentionCut::SOFTWARE,
    };
    /// Threads in hardware: neighbours share a row, so that their loads are neighbours too.
    pub const HARDWARE: Geometry = Geometry {
        workgroup: 64,
        lanes: 32,
        rows: 2,
        dot4: MAX_COLUMNS as u32,
        masks: false,
        texture: false,
        uniform: false,
        sample_threads: 256,
        attention: AttentionCut::HARDWARE,
    };

    /// Candidates for a matrix on a device of this geometry, itself the first: [`super::GpuExecutor::tune`] times them. Where
    /// threads are emulated all have one lane, and so the same bits.
    pub fn alternatives(self) -> Vec<Geometry> {
        let cut = |workgroup, lanes, rows| Geometry { workgroup, lanes, rows, ..self };
        let mut all = vec![self];
        if self.lanes > 1 {
            all.extend([cut(64, 32, 1), cut(64, 16, 1), cut(64, 16, 2), cut(64, 8, 1), cut(64, 8, 2), cut(64, 8, 4)]);
            all.extend([cut(64, 64, 1), cut(64, 64, 2), cut(128, 32, 2), cut(128, 16, 2), cut(64, 4, 2)]);
        } else {
            let memory = [(false, true), (true, true), (false, false)];
            all.extend(memory.map(|(texture, uniform)| Geometry { texture, uniform, ..self }));
            all.extend([4, 2].map(|rows| Geometry { texture: false, uniform: false, rows, ..self }));
        }
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|&geometry| seen.insert(geometry));
        all
    }

    /// In words, for reports and fingerprints.
    pub fn label(&self) -> String {
        let with = |flag: bool, what: &'static str| if flag { what } else { "" };
        let Geometry { workgroup, lanes, rows, dot4, masks, texture, uniform, .. } = *self;
        format!(
            "{workgroup}-{lanes}-{rows}{}{}{}{}",
            if dot4 > 0 { format!(" dot4 to {dot4} columns") } else { String::new() },
            with(masks, " masks"),
            with(texture, " texture"),
            with(uniform, " uniform")
        )
    }

    /// Rows that one workgroup computes.
    pub const fn rows_per_workgroup(&self) -> u32 {
        self.workgroup / self.lanes * self.rows
    }

    /// Whether matrices of a layout lie in textures: those whose blocks are whole texels, with a word of scales each.
    pub const fn lies_in_texture(&self, layout: Layout) -> bool {
        let eight = self.workgroup == TEXTURE_EIGHT as u32 && self.lanes == 1;
        self.texture && eight && self.rows.is_multiple_of(4) && matches!(layout, Layout::Q4 | Layout::Q8)
    }
}

/// What products of bytes are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Products {
    Dot4,
    Pairs,
    Floats,
    Masks,
}

impl Products {
    /// For passes of so many columns: without an instruction for it what takes the fewest, unless masks do better.
    const fn of(layout: Layout, geometry: Geometry, cols: u32) -> Products {
        match layout {
            _ if geometry.dot4 >= cols => Products::Dot4,
            _ if geometry.masks => Products::Masks,
            Layout::Q4 | Layout::Q4K | Layout::Q5 | Layout::Q5K => Products::Pairs,
            _ => Products::Floats,
        }
    }

    const fn flag(self) -> Option<&'static str> {
        match self {
            Products::Dot4 => Some("DOT4"),
            Products::Pairs => Some("PAIRS"),
            Products::Floats => None,
            Products::Masks => Some("MASKS"),
        }
    }

    /// What a sum begins with.
    const fn zero(self) -> &'static str {
        match self {
            Products::Dot4 => "0",
            Products::Pairs => "0u",
            Products::Floats | Products::Masks => "0.0",
        }
    }
}

/// A permutation of `matvec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MatvecKey {
    /// Of the matrix.
    pub layout: Layout,
    /// Columns computed at once.
    pub cols: u32,
    /// The vector is quantised.
    pub quantised: bool,
    /// The matrix lies in textures.
    pub texture: bool,
    /// The vector is bound as a uniform.
    pub uniform: bool,
    /// How it is cut.
    pub geometry: Geometry,
}

/// A permutation of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KernelKey {
    /// By the layout of the matrix, and whether it lies in textures.
    Embed(Layout, bool),
    /// Whether it quantises.
    RmsNorm(bool),
    /// See there.
    Matvec(MatvecKey),
    /// Whether there is a norm.
    RopeKv(bool),
    /// How it is cut, and whether queries are bound as a uniform.
    Attention(AttentionCut, bool),
    /// Whether it quantises, and whether threads then work alone.
    AttentionCombine(bool, bool),
    /// `true` for SiLU, `false` for GELU; whether it quantises.
    Activation(bool, bool),
    /// By the threads that share a row.
    Sample(u32),
    /// By the threads that share a row.
    RowStats(u32),
    /// One text.
    Compact,
}

impl KernelKey {
    /// Key of an activation.
    pub const fn activation(gate: Gate, quantised: bool) -> KernelKey {
        KernelKey::Activation(matches!(gate, Gate::Silu), quantised)
    }

    /// Key of an `attention_combine`.
    pub const fn attention_combine(quantised: bool, geometry: Geometry) -> KernelKey {
        KernelKey::AttentionCombine(quantised, quantised && geometry.attention.alone)
    }

    /// The file.
    pub const fn kernel(self) -> Kernel {
        match self {
            KernelKey::Embed(..) => Kernel::Embed,
            KernelKey::RmsNorm(_) => Kernel::RmsNorm,
            KernelKey::Matvec(_) => Kernel::Matvec,
            KernelKey::RopeKv(_) => Kernel::RopeKv,
            KernelKey::Attention(..) => Kernel::Attention,
            KernelKey::AttentionCombine(..) => Kernel::AttentionCombine,
            KernelKey::Activation(..) => Kernel::Activation,
            KernelKey::Sample(_) => Kernel::Sample,
            KernelKey::RowStats(_) => Kernel::RowStats,
            KernelKey::Compact => Kernel::Compact,
        }
    }

    /// Name for labels and messages.
    pub fn label(self) -> String {
        let with = |flag: bool, what: &'static str| if flag { what } else { "" };
        match self {
            KernelKey::Embed(layout, texture) => format!("embed {}{}", layout.name(), with(texture, " texture")),
            KernelKey::Matvec(MatvecKey { layout, cols, quantised, texture, uniform, geometry: g }) => format!(
                "matvec {} x{cols} (lanes {}, rows {}{}{}{})",
                layout.name(),
                g.lanes,
                g.rows,
                with(
                    quantised,
                    match Products::of(layout, g, cols) {
                        Products::Dot4 => ", q8 dot4",
                        Products::Masks => ", q8 masks",
                        Products::Pairs | Products::Floats => ", q8",
                    }
                ),
                with(texture, ", texture"),
                with(uniform, ", uniform"),
            ),
            KernelKey::Activation(silu, quantised) => {
                format!("activation {}{}", if silu { "SILU" } else { "GELU_TANH" }, with(quantised, " q8"))
            }
            KernelKey::RmsNorm(quantised) => format!("rms_norm{}", with(quantised, " q8")),
            KernelKey::AttentionCombine(quantised, alone) => {
                format!("attention_combine{}{}", with(quantised, " q8"), with(alone, " alone"))
            }
            KernelKey::RopeKv(norm) => format!("rope_kv{}", with(norm, " norm")),
            KernelKey::Attention(cut, uniform) => {
                let alone = if cut.alone { format!(" of {} columns a thread", cut.columns) } else { String::new() };
                format!("attention (rows {}{alone}){}", cut.rows, with(uniform, " uniform"))
            }
            KernelKey::Sample(threads) => format!("sample (threads {threads})"),
            KernelKey::RowStats(threads) => format!("row_stats (threads {threads})"),
            KernelKey::Compact => self.kernel().name().to_owned(),
        }
    }

    /// The WGSL text of this permutation.
    pub fn wgsl(self) -> Result<String, String> {
        let mut defines = Defines::new();
        let mut set = |name: &'static str, value: String| drop(defines.insert(name, value));
        let mut flags: Vec<&'static str> = Vec::new();
        match self {
            KernelKey::Embed(layout, texture) => {
                flags.extend(layout_flags(layout));
                flags.extend(texture.then_some("TEXTURE"));
            }
            KernelKey::Matvec(MatvecKey { layout, cols, quantised, texture, uniform, geometry }) => {
                flags.extend(layout_flags(layout));
                flags.extend(texture.then_some("TEXTURE"));
                flags.extend(quantised.then_some("QUANTISED"));
                let products = Products::of(layout, geometry, cols);
                flags.extend(products.flag().filter(|_| quantised));
                set("ZERO", products.zero().to_owned());
                flags.extend((geometry.lanes > 1).then_some("REDUCE"));
                set("X", if quantised { "u32" } else { "f32" }.to_owned());
                set("COLS", cols.to_string());
                set("WORKGROUP", geometry.workgroup.to_string());
                set("LANES", geometry.lanes.to_string());
                set("ROWS", geometry.rows.to_string());
                set("FOURS", (geometry.rows / 4).to_string());
                if uniform {
                    set("UNIFORM", (UNIFORM_WORDS / 4).to_string());
                }
            }
            KernelKey::Attention(AttentionCut { alone, rows, columns, unroll }, uniform) => {
                flags.extend(alone.then_some("ALONE"));
                set("ROWS", rows.to_string());
                set("COLUMNS", columns.to_string());
                set("UNROLL", unroll.to_string());
                if uniform {
                    set("UNIFORM", (UNIFORM_WORDS / 4).to_string());
                }
            }
            KernelKey::Sample(threads) | KernelKey::RowStats(threads) => set("SAMPLE_THREADS", threads.to_string()),
            KernelKey::Activation(silu, quantised) => {
                flags.extend(silu.then_some("SILU"));
                flags.push(if quantised { "QUANTISED" } else { "FLOATS" });
            }
            KernelKey::RmsNorm(quantised) => flags.push(if quantised { "QUANTISED" } else { "FLOATS" }),
            KernelKey::AttentionCombine(quantised, alone) => {
                flags.extend(quantised.then_some("QUANTISED"));
                flags.extend(alone.then_some("ALONE"));
            }
            KernelKey::RopeKv(norm) => flags.extend(norm.then_some("NORM")),
            KernelKey::Compact => {}
        }
        defines.extend(flags.into_iter().map(|flag| (flag, "1".to_owned())));
        preprocess(self.kernel().source(), &defines).map_err(|reason| format!("{}: {reason}", self.label()))
    }

    /// Every permutation that a device of this geometry can be asked for.
    pub fn all(geometry: Geometry) -> Vec<KernelKey> {
        let mut keys = vec![
            KernelKey::Sample(geometry.sample_threads),
            KernelKey::RowStats(geometry.sample_threads),
            KernelKey::Compact,
        ];
        for flag in [false, true] {
            keys.extend([KernelKey::RopeKv(flag), KernelKey::RmsNorm(flag)]);
            keys.push(KernelKey::attention_combine(flag, geometry));
            for columns in 1..=geometry.attention.columns {
                let of = |per_kv| KernelKey::Attention(geometry.attention.of(columns, per_kv), flag);
                keys.extend((1..=geometry.attention.rows).map(of));
            }
            keys.extend([KernelKey::Activation(true, flag), KernelKey::Activation(false, flag)]);
        }
        keys.extend(KernelKey::of_layouts(geometry, &Layout::ALL));
        keys.sort();
        keys.dedup();
        keys
    }

    /// Those of them that read matrices of these layouts.
    pub fn of_layouts(geometry: Geometry, layouts: &[Layout]) -> Vec<KernelKey> {
        let mut keys = Vec::new();
        for &layout in layouts {
            for texture in [false, true].into_iter().filter(|&texture| !texture || geometry.lies_in_texture(layout)) {
                keys.push(KernelKey::Embed(layout, texture));
                for quantised in [false, true].into_iter().filter(|&q| !q || layout.is_quantised()) {
                    for uniform in [false, true].into_iter().filter(|&uniform| !uniform || geometry.uniform) {
                        keys.extend(crate::plan::COLUMN_BUCKETS.map(|cols| {
                            let cols = cols as u32;
                            KernelKey::Matvec(MatvecKey { layout, cols, quantised, texture, uniform, geometry })
                        }));
                    }
                }
            }
        }
        keys
    }
}

/// Names that a layout defines.
fn layout_flags(layout: Layout) -> Vec<&'static str> {
    let mut flags = vec![layout.name()];
    flags.extend(layout.is_quantised().then_some("QUANTS"));
    flags.extend(matches!(layout, Layout::F16 | Layout::BF16).then_some("HALVES"));
    flags.extend(matches!(layout, Layout::Q4 | Layout::Q4K).then_some("NIBBLES"));
    flags.extend((layout == Layout::Q6K).then_some("TWO_SCALES"));
    flags.extend(matches!(layout, Layout::Q5 | Layout::Q5K).then_some("FIVE_BITS"));
    flags.extend(matches!(layout, Layout::Q4 | Layout::Q5 | Layout::Q4K | Layout::Q5K).then_some("OFFSET"));
    flags
}

/// How a kernel uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Binding {
    /// A buffer that is read.
    Read,
    /// A buffer that is written as well.
    Write,
    /// A buffer of at least [`UNIFORM_WORDS`].
    Uniform,
    /// A texture of words.
    Texture,
}

/// What the host reads out of a kernel's text: its bindings and the fields of its `Fixed` struct.
pub(super) struct Interface {
    /// For bindings 2 and on.
    pub(super) bindings: Vec<Binding>,
    /// Names of the fields of `Fixed`, four bytes each, in order.
    pub(super) fixed: Vec<String>,
}

impl Interface {
    /// Reads the interface from expanded WGSL.
    pub(super) fn of(wgsl: &str) -> Result<Interface, String> {
        let mut bindings = std::collections::BTreeMap::new();
        let mut fixed = Vec::new();
        let mut in_fixed = false;
        for line in wgsl.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("@group(0) @binding(") {
                let (number, rest) = rest.split_once(") ").ok_or("a binding without a declaration")?;
                let number: usize = number.parse().map_err(|_| format!("binding {number}"))?;
                let kind = match () {
                    () if rest.starts_with("var<storage, read_write>") => Binding::Write,
                    () if rest.starts_with("var<storage, read>") => Binding::Read,
                    () if rest.ends_with("texture_2d<u32>;") => Binding::Texture,
                    () => Binding::Uniform,
                };
                if number >= 2 {
                    bindings.insert(number, kind);
                }
            } else if line == "struct Fixed {" {
                in_fixed = true;
            } else if in_fixed && line == "}" {
                in_fixed = false;
            } else if in_fixed && !line.starts_with("//") {
                let (name, kind) = line.split_once(": ").ok_or_else(|| format!("field {line}"))?;
                if kind != "u32," && kind != "f32," {
                    return Err(format!("field {line}: expected u32 or f32"));
                }
                fixed.push(name.to_owned());
            }
        }
        if bindings.keys().copied().ne(2..2 + bindings.len()) {
            return Err(format!("bindings are {:?}, expected 2 and on", bindings.keys()));
        }
        Ok(Interface { bindings: bindings.into_values().collect(), fixed })
    }
}
