//! The kernels: their texts, the permutations there are of each, and what the host must know of them, read from the text.

use super::preprocess::{Defines, preprocess};
use crate::plan::{Gate, KV_CHUNK, ROW_STATS_WORDS, TOP};
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
/// Elements that one workgroup of `activation` computes.
pub(super) const ACTIVATION_WORKGROUP: u32 = u32_after(Kernel::Activation.source(), "const WORKGROUP: u32 = ");
/// Words of a slot that one workgroup of `compact` moves.
pub(super) const COMPACT_WORKGROUP: u32 = u32_after(Kernel::Compact.source(), "const WORKGROUP: u32 = ");
/// Largest head that the attention kernels have room for.
pub(super) const MAX_HEAD_DIM: u32 = u32_after(Kernel::Attention.source(), "const MAX_HEAD_DIM: u32 = ");

const _: () = {
    assert!(u32_after(Kernel::Attention.source(), "const KV_CHUNK: u32 = ") as usize == KV_CHUNK, "attention.wgsl");
    assert!(u32_after(Kernel::AttentionCombine.source(), "const KV_CHUNK: u32 = ") as usize == KV_CHUNK, "combine");
    assert!(u32_after(Kernel::RopeKv.source(), "const MAX_HEAD_DIM: u32 = ") == MAX_HEAD_DIM, "rope_kv.wgsl");
    let recent = u32_after(Kernel::Sample.source(), "const MAX_RECENT: u32 = ");
    assert!(recent as usize == crate::sampling::MAX_PENALTY_TOKENS, "sample.wgsl");
    assert!(u32_after(Kernel::RowStats.source(), "const TOP: u32 = ") as usize == TOP, "row_stats.wgsl");
    assert!(u32_after(Kernel::RowStats.source(), "const WORDS: u32 = ") as usize == ROW_STATS_WORDS, "row_stats.wgsl");
    let candidates = u32_after(Kernel::Sample.source(), "const CANDIDATES: u32 = ");
    assert!(candidates * Geometry::SOFTWARE.sample_threads >= recent, "sample.wgsl keeps recent tokens in its scratch");
};

/// How kernels are cut; decided once a device, the same for every column count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Geometry {
    /// Threads in a workgroup of `matvec`.
    pub workgroup: u32,
    /// Threads that share a row.
    pub lanes: u32,
    /// Rows a thread works on.
    pub rows: u32,
    /// Threads that share a row of logits in `sample` and `row_stats`.
    pub sample_threads: u32,
}

impl Geometry {
    /// Emulated threads: each works alone, without barriers, and re-uses what it loads over rows, since loads are what
    /// costs there. On lavapipe, 1536 x 576 in Q4, 8 rows against 4 and 2: 10 / 9 / 7.5 GFLOP/s for 1 column and
    /// 22 / 14 / 9 for 8; with 16 rows 10 and 28, but a kernel takes seconds to compile. Small workgroups spread small
    /// matrices over the cores and cost nothing.
    pub const SOFTWARE: Geometry = Geometry { workgroup: 8, lanes: 1, rows: 8, sample_threads: 64 };
    /// Threads in hardware: neighbours share a row, so that their loads are neighbours too.
    pub const HARDWARE: Geometry = Geometry { workgroup: 64, lanes: 32, rows: 2, sample_threads: 256 };

    /// Rows that one workgroup computes.
    pub const fn rows_per_workgroup(&self) -> u32 {
        self.workgroup / self.lanes * self.rows
    }
}

/// A permutation of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KernelKey {
    /// By the layout of the matrix.
    Embed(Layout),
    /// One text.
    RmsNorm,
    /// By the layout of the matrix, the columns computed at once, and the geometry.
    Matvec(Layout, u32, Geometry),
    /// One text.
    RopeKv,
    /// One text.
    Attention,
    /// One text.
    AttentionCombine,
    /// `true` for SiLU, `false` for GELU.
    Activation(bool),
    /// By the threads that share a row.
    Sample(u32),
    /// By the threads that share a row.
    RowStats(u32),
    /// One text.
    Compact,
}

impl KernelKey {
    /// Key of an activation.
    pub const fn activation(gate: Gate) -> KernelKey {
        KernelKey::Activation(matches!(gate, Gate::Silu))
    }

    /// The file.
    pub const fn kernel(self) -> Kernel {
        match self {
            KernelKey::Embed(_) => Kernel::Embed,
            KernelKey::RmsNorm => Kernel::RmsNorm,
            KernelKey::Matvec(..) => Kernel::Matvec,
            KernelKey::RopeKv => Kernel::RopeKv,
            KernelKey::Attention => Kernel::Attention,
            KernelKey::AttentionCombine => Kernel::AttentionCombine,
            KernelKey::Activation(_) => Kernel::Activation,
            KernelKey::Sample(_) => Kernel::Sample,
            KernelKey::RowStats(_) => Kernel::RowStats,
            KernelKey::Compact => Kernel::Compact,
        }
    }

    /// Name for labels and messages.
    pub fn label(self) -> String {
        match self {
            KernelKey::Embed(layout) => format!("embed {}", layout.name()),
            KernelKey::Matvec(layout, cols, g) => {
                format!("matvec {} x{cols} (lanes {}, rows {})", layout.name(), g.lanes, g.rows)
            }
            KernelKey::Activation(silu) => format!("activation {}", if silu { "SILU" } else { "GELU_TANH" }),
            KernelKey::Sample(threads) => format!("sample (threads {threads})"),
            KernelKey::RowStats(threads) => format!("row_stats (threads {threads})"),
            other => other.kernel().name().to_owned(),
        }
    }

    /// The WGSL text of this permutation.
    pub fn wgsl(self) -> Result<String, String> {
        let mut defines = Defines::new();
        let mut layout = |layout: Layout| {
            defines.insert(layout.name(), 1);
            if matches!(layout, Layout::F16 | Layout::BF16) {
                defines.insert("HALVES", 1);
            }
        };
        match self {
            KernelKey::Embed(of) => layout(of),
            KernelKey::Matvec(of, cols, geometry) => {
                layout(of);
                defines.insert("COLS", cols);
                defines.insert("WORKGROUP", geometry.workgroup);
                defines.insert("LANES", geometry.lanes);
                defines.insert("ROWS", geometry.rows);
                if geometry.lanes > 1 {
                    defines.insert("REDUCE", 1);
                }
            }
            KernelKey::Sample(threads) | KernelKey::RowStats(threads) => {
                defines.insert("SAMPLE_THREADS", threads);
            }
            KernelKey::Activation(true) => drop(defines.insert("SILU", 1)),
            _ => {}
        }
        preprocess(self.kernel().source(), &defines).map_err(|reason| format!("{}: {reason}", self.label()))
    }

    /// Every permutation that a device of this geometry can be asked for.
    pub fn all(geometry: Geometry) -> Vec<KernelKey> {
        let mut keys = vec![
            KernelKey::RmsNorm,
            KernelKey::RopeKv,
            KernelKey::Attention,
            KernelKey::AttentionCombine,
            KernelKey::Activation(true),
            KernelKey::Activation(false),
            KernelKey::Sample(geometry.sample_threads),
            KernelKey::RowStats(geometry.sample_threads),
            KernelKey::Compact,
        ];
        for layout in Layout::ALL {
            keys.push(KernelKey::Embed(layout));
            keys.extend(crate::plan::COLUMN_BUCKETS.map(|cols| KernelKey::Matvec(layout, cols as u32, geometry)));
        }
        keys
    }
}

/// What the host reads out of a kernel's text: its storage bindings and the fields of its `Fixed` struct.
pub(super) struct Interface {
    /// For bindings 2 and on: written as well as read.
    pub(super) writable: Vec<bool>,
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
                if rest.starts_with("var<storage") {
                    bindings.insert(number, rest.starts_with("var<storage, read_write>"));
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
            return Err(format!("storage bindings are {:?}, expected 2 and on", bindings.keys()));
        }
        Ok(Interface { writable: bindings.into_values().collect(), fixed })
    }
}
