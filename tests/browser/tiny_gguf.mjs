// A whole, valid model of the `llama` architecture, made of noise: large enough to come in several chunks, small enough to
// load in a moment. GGUF v3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

const [LAYERS, WIDTH, HEADS, KV_HEADS, HIDDEN, CONTEXT] = [6, 256, 4, 2, 768, 256];
const ALIGNMENT = 32;
const TYPE = { uint: 4, int: 5, float: 6, bool: 7, string: 8, array: 9 };

const u32 = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const u64 = (value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
const f32 = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
};
const string = (text) => Buffer.concat([u64(Buffer.byteLength(text)), Buffer.from(text)]);

const uint = (value) => [u32(TYPE.uint), u32(value)];
const float = (value) => [u32(TYPE.float), f32(value)];
const text = (value) => [u32(TYPE.string), string(value)];
const flag = (value) => [u32(TYPE.bool), Buffer.from([value ? 1 : 0])];
const strings = (values) => [u32(TYPE.array), u32(TYPE.string), u64(values.length), ...values.map(string)];
const ints = (values) => [u32(TYPE.array), u32(TYPE.int), u64(values.length), ...values.map(u32)];

/** 256 bytes as GPT-2 prints them, one merge, two special tokens. */
function vocabulary() {
  let next = 256;
  const printable = (byte) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
  const bytes = Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
  return [...bytes, "th", "<|start|>", "<|end|>"];
}

/** Numbers in [-1, 1) that look random and are the same for a seed (mulberry32). */
function noise(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

/** The file's bytes; `seed` makes another model, and `trailing` bytes stand behind the last tensor, which nothing reads. */
export function tinyGguf({ seed = 1, trailing = 0 } = {}) {
  const tokens = vocabulary();
  const metadata = {
    "general.architecture": text("llama"),
    "general.name": text(`tiny ${seed}`),
    "llama.block_count": uint(LAYERS),
    "llama.context_length": uint(CONTEXT),
    "llama.embedding_length": uint(WIDTH),
    "llama.feed_forward_length": uint(HIDDEN),
    "llama.attention.head_count": uint(HEADS),
    "llama.attention.head_count_kv": uint(KV_HEADS),
    "llama.attention.layer_norm_rms_epsilon": float(1e-5),
    "llama.rope.dimension_count": uint(WIDTH / HEADS),
    "llama.rope.freq_base": float(10_000),
    "llama.vocab_size": uint(tokens.length),
    "tokenizer.ggml.model": text("gpt2"),
    "tokenizer.ggml.pre": text("smollm"),
    "tokenizer.ggml.tokens": strings(tokens),
    "tokenizer.ggml.token_type": ints([...Array(257).fill(1), 3, 3]),
    "tokenizer.ggml.merges": strings(["t h"]),
    "tokenizer.ggml.bos_token_id": uint(257),
    "tokenizer.ggml.eos_token_id": uint(258),
    "tokenizer.ggml.add_bos_token": flag(false),
    "tokenizer.chat_template": text("{% for m in messages %}<|start|>{{ m.content }}<|end|>{% endfor %}<|start|>"),
  };
  const random = noise(seed);
  const matrix = (name, rows, cols) => {
    const spread = Math.sqrt(3 / cols);
    return { name, shape: [cols, rows], weights: Float32Array.from({ length: rows * cols }, () => random() * spread) };
  };
  const norm = (name) => ({ name, shape: [WIDTH], weights: new Float32Array(WIDTH).fill(1) });
  const kvWidth = (WIDTH / HEADS) * KV_HEADS;
  const tensors = [matrix("token_embd.weight", tokens.length, WIDTH), norm("output_norm.weight")];
  for (let layer = 0; layer < LAYERS; layer++) {
    const name = (part) => `blk.${layer}.${part}.weight`;
    tensors.push(
      norm(name("attn_norm")),
      matrix(name("attn_q"), WIDTH, WIDTH),
      matrix(name("attn_k"), kvWidth, WIDTH),
      matrix(name("attn_v"), kvWidth, WIDTH),
      matrix(name("attn_output"), WIDTH, WIDTH),
      norm(name("ffn_norm")),
      matrix(name("ffn_gate"), HIDDEN, WIDTH),
      matrix(name("ffn_up"), HIDDEN, WIDTH),
      matrix(name("ffn_down"), WIDTH, HIDDEN),
    );
  }
  const parts = [Buffer.from("GGUF"), u32(3), u64(tensors.length), u64(Object.keys(metadata).length)];
  for (const [key, value] of Object.entries(metadata)) parts.push(string(key), ...value);
  const aligned = (length) => Math.ceil(length / ALIGNMENT) * ALIGNMENT;
  let offset = 0;
  for (const { name, shape, weights } of tensors) {
    parts.push(string(name), u32(shape.length), ...shape.map(u64), u32(0), u64(offset));
    offset += aligned(weights.byteLength);
  }
  const header = parts.reduce((sum, part) => sum + part.length, 0);
  parts.push(Buffer.alloc(aligned(header) - header));
  for (const { weights } of tensors) {
    parts.push(Buffer.from(weights.buffer), Buffer.alloc(aligned(weights.byteLength) - weights.byteLength));
  }
  parts.push(Buffer.alloc(trailing, 7));
  return Buffer.concat(parts);
}
