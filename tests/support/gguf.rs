//! Writes GGUF v3 files, so that tests need no file from outside.

use foredraft::weights::format::Format;
use foredraft::weights::metadata::Value;

/// A tensor to write. `kind` is ggml's number of the format; it and `data` may be wrong on purpose.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// Slowest dimension first.
    pub(crate) shape: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) data: Vec<u8>,
}

impl Tensor {
    pub(crate) fn new(name: &str, shape: &[u64], format: Format, data: Vec<u8>) -> Tensor {
        Tensor { name: name.to_owned(), shape: shape.to_vec(), kind: format.ggml_type(), data }
    }

    /// An F32 tensor.
    pub(crate) fn f32(name: &str, shape: &[u64], weights: &[f32]) -> Tensor {
        assert_eq!(shape.iter().product::<u64>(), weights.len() as u64, "{name}");
        Tensor::new(name, shape, Format::F32, weights.iter().flat_map(|weight| weight.to_le_bytes()).collect())
    }
}

/// The bytes of a file with this metadata and these tensors, in this order. Integers are written with 32 bits where they
/// fit, floats with 32, arrays of integers as `i32`, or `i64` where one needs it.
pub(crate) fn write<'a>(metadata: impl IntoIterator<Item = (&'a str, Value)>, tensors: &[Tensor]) -> Vec<u8> {
    let metadata: Vec<(&str, Value)> = metadata.into_iter().collect();
    let alignment = metadata.iter().find(|(key, _)| *key == "general.alignment").map_or(32, |(_, value)| match value {
        Value::Uint(bytes) => *bytes as usize,
        other => panic!("general.alignment is {other:?}"),
    });
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in &metadata {
        string(&mut out, key);
        write_value(&mut out, value);
    }
    let mut offset = 0usize;
    for tensor in tensors {
        string(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        for dimension in tensor.shape.iter().rev() {
            out.extend(dimension.to_le_bytes());
        }
        out.extend(tensor.kind.to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += tensor.data.len().next_multiple_of(alignment);
    }
    for tensor in tensors {
        out.resize(out.len().next_multiple_of(alignment), 0);
        out.extend(&tensor.data);
    }
    // Padded at the end too, as ggml does.
    out.resize(out.len().next_multiple_of(alignment), 0);
    out
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    let kind = |out: &mut Vec<u8>, kind: u32| out.extend(kind.to_le_bytes());
    let array = |out: &mut Vec<u8>, kind: u32, len: usize| {
        out.extend(9u32.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((len as u64).to_le_bytes());
    };
    match value {
        Value::Uint(v) => match u32::try_from(*v) {
            Ok(v) => {
                kind(out, 4);
                out.extend(v.to_le_bytes());
            }
            Err(_) => {
                kind(out, 10);
                out.extend(v.to_le_bytes());
            }
        },
        Value::Int(v) => match i32::try_from(*v) {
            Ok(v) => {
                kind(out, 5);
                out.extend(v.to_le_bytes());
            }
            Err(_) => {
                kind(out, 11);
                out.extend(v.to_le_bytes());
            }
        },
        Value::Float(v) => {
            kind(out, 6);
            out.extend((*v as f32).to_le_bytes());
        }
        Value::Bool(v) => {
            kind(out, 7);
            out.push(u8::from(*v));
        }
        Value::String(v) => {
            kind(out, 8);
            string(out, v);
        }
        Value::Strings(v) => {
            array(out, 8, v.len());
            v.iter().for_each(|text| string(out, text));
        }
        Value::Floats(v) => {
            array(out, 6, v.len());
            v.iter().for_each(|number| out.extend(number.to_le_bytes()));
        }
        Value::Ints(v) if v.iter().all(|number| i32::try_from(*number).is_ok()) => {
            array(out, 5, v.len());
            v.iter().for_each(|number| out.extend((*number as i32).to_le_bytes()));
        }
        Value::Ints(v) => {
            array(out, 11, v.len());
            v.iter().for_each(|number| out.extend(number.to_le_bytes()));
        }
    }
}

/// Numbers that look random and are the same every time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// splitmix64 (Vigna, 2015).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    pub(crate) fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Sizes of [`tiny_llama`].
pub(crate) mod tiny {
    pub(crate) const LAYERS: u64 = 2;
    pub(crate) const WIDTH: u64 = 64;
    pub(crate) const HEADS: u64 = 2;
    pub(crate) const KV_HEADS: u64 = 1;
    pub(crate) const HIDDEN: u64 = 96;
    pub(crate) const CONTEXT: u64 = 128;
    /// 256 bytes, one merge and two special tokens.
    pub(crate) const VOCABULARY: u64 = 259;
}

/// Metadata of [`tiny_llama`].
pub(crate) fn tiny_llama_metadata() -> Vec<(&'static str, Value)> {
    // GPT-2's printable stand-ins for the 256 bytes.
    let mut next = 256u32;
    let byte = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
        _ => {
            next += 1;
            next - 1
        }
    };
    let mut tokens: Vec<String> = (0..=255u8).map(byte).map(|c| char::from_u32(c).unwrap().to_string()).collect();
    tokens.extend(["th", "<|start|>", "<|end|>"].map(str::to_owned));
    let mut kinds = vec![1; 257];
    kinds.extend([3, 3]);
    vec![
        ("general.architecture", Value::String("llama".to_owned())),
        ("general.name", Value::String("tiny".to_owned())),
        ("llama.block_count", Value::Uint(tiny::LAYERS)),
        ("llama.context_length", Value::Uint(tiny::CONTEXT)),
        ("llama.embedding_length", Value::Uint(tiny::WIDTH)),
        ("llama.feed_forward_length", Value::Uint(tiny::HIDDEN)),
        ("llama.attention.head_count", Value::Uint(tiny::HEADS)),
        ("llama.attention.head_count_kv", Value::Uint(tiny::KV_HEADS)),
        ("llama.attention.layer_norm_rms_epsilon", Value::Float(1e-5)),
        ("llama.rope.dimension_count", Value::Uint(tiny::WIDTH / tiny::HEADS)),
        ("llama.rope.freq_base", Value::Float(10_000.0)),
        ("llama.vocab_size", Value::Uint(tiny::VOCABULARY)),
        ("tokenizer.ggml.model", Value::String("gpt2".to_owned())),
        ("tokenizer.ggml.pre", Value::String("smollm".to_owned())),
        ("tokenizer.ggml.tokens", Value::Strings(tokens)),
        ("tokenizer.ggml.token_type", Value::Ints(kinds)),
        ("tokenizer.ggml.merges", Value::Strings(vec!["t h".to_owned()])),
        ("tokenizer.ggml.bos_token_id", Value::Uint(257)),
        ("tokenizer.ggml.eos_token_id", Value::Uint(258)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        (
            "tokenizer.chat_template",
            Value::String("{% for m in messages %}<|start|>{{ m.content }}<|end|>{% endfor %}<|start|>".to_owned()),
        ),
    ]
}

/// Tensors of [`tiny_llama`]: F32, with a tied output.
pub(crate) fn tiny_llama_tensors() -> Vec<Tensor> {
    use tiny::{HEADS, HIDDEN, KV_HEADS, LAYERS, VOCABULARY, WIDTH};
    let mut random = Random(1);
    let mut matrix = |name: &str, rows: u64, cols: u64| {
        let spread = (3.0 / cols as f32).sqrt();
        let weights: Vec<f32> = (0..rows * cols).map(|_| random.signed() * spread).collect();
        Tensor::f32(name, &[rows, cols], &weights)
    };
    let norm = |name: &str| Tensor::f32(name, &[WIDTH], &[1.0; WIDTH as usize]);
    let kv_width = WIDTH / HEADS * KV_HEADS;
    let mut tensors = vec![matrix("token_embd.weight", VOCABULARY, WIDTH), norm("output_norm.weight")];
    for layer in 0..LAYERS {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        tensors.extend([
            norm(&name("attn_norm")),
            matrix(&name("attn_q"), WIDTH, WIDTH),
            matrix(&name("attn_k"), kv_width, WIDTH),
            matrix(&name("attn_v"), kv_width, WIDTH),
            matrix(&name("attn_output"), WIDTH, WIDTH),
            norm(&name("ffn_norm")),
            matrix(&name("ffn_gate"), HIDDEN, WIDTH),
            matrix(&name("ffn_up"), HIDDEN, WIDTH),
            matrix(&name("ffn_down"), WIDTH, HIDDEN),
        ]);
    }
    tensors
}

/// [`tiny_llama`] with another length of context.
pub(crate) fn tiny_llama_with_context(tokens: u64) -> Vec<u8> {
    let mut metadata = tiny_llama_metadata();
    metadata.retain(|(key, _)| *key != "llama.context_length");
    metadata.push(("llama.context_length", Value::Uint(tokens)));
    write(metadata, &tiny_llama_tensors())
}

/// A whole, valid, tiny model of the `llama` architecture with a byte-level BPE tokenizer.
pub(crate) fn tiny_llama() -> Vec<u8> {
    write(tiny_llama_metadata(), &tiny_llama_tensors())
}
