// A small GGUF model whose answers are known: its weights say which token follows which, and nothing else. Everything around it
// is the real thing, in milliseconds.

const STRING = 8;
const ARRAY = 9;
const WIDTH = 320;
const HIDDEN = 32;
const HEADS = 5;

/** GPT-2's printable stand-ins for the 256 bytes. */
function byteTokens() {
  let next = 256;
  const printable = (byte) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte !== 0xad);
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
}

/**
 * The file. `scripts` are answers by the text of the special token that the chat template ends with, each a list of pieces; a
 * piece is a token. Every other token is followed by the end of the answer.
 */
export function scriptedModel({ scripts, template, context = 256 }) {
  const pieces = [...new Set(Object.values(scripts).flat())];
  const special = ["<|start|>", "<|end|>", ...Object.keys(scripts)];
  const tokens = [...byteTokens(), ...special, ...pieces];
  const kinds = tokens.map((_, id) => (id < 256 ? 1 : id < 256 + special.length ? 3 : 4));
  const id = (token) => tokens.indexOf(token, 256);
  const end = id("<|end|>");
  const follows = tokens.map(() => end);
  for (const [first, script] of Object.entries(scripts)) {
    [first, ...script].forEach((token, at, path) => (follows[id(token)] = at + 1 < path.length ? id(path[at + 1]) : end));
  }

  const embedding = new Float32Array(tokens.length * WIDTH);
  const head = new Float32Array(tokens.length * WIDTH);
  if (tokens.length > WIDTH) throw new Error(`${tokens.length} tokens, at most ${WIDTH}`);
  follows.forEach((next, token) => {
    embedding[token * WIDTH + token] = 1;
    head[next * WIDTH + token] = 1;
  });
  const ones = new Float32Array(WIDTH).fill(1);
  const zeros = (rows, cols) => [[rows, cols], new Float32Array(rows * cols)];
  const tensors = {
    "token_embd.weight": [[tokens.length, WIDTH], embedding],
    "output.weight": [[tokens.length, WIDTH], head],
    "output_norm.weight": [[WIDTH], ones],
    "blk.0.attn_norm.weight": [[WIDTH], ones],
    "blk.0.attn_q.weight": zeros(WIDTH, WIDTH),
    "blk.0.attn_k.weight": zeros(WIDTH / HEADS, WIDTH),
    "blk.0.attn_v.weight": zeros(WIDTH / HEADS, WIDTH),
    "blk.0.attn_output.weight": zeros(WIDTH, WIDTH),
    "blk.0.ffn_norm.weight": [[WIDTH], ones],
    "blk.0.ffn_gate.weight": zeros(HIDDEN, WIDTH),
    "blk.0.ffn_up.weight": zeros(HIDDEN, WIDTH),
    "blk.0.ffn_down.weight": zeros(WIDTH, HIDDEN),
  };
  return write(
    {
      "general.architecture": "llama",
      "general.name": "scripted",
      "llama.block_count": 1,
      "llama.context_length": context,
      "llama.embedding_length": WIDTH,
      "llama.feed_forward_length": HIDDEN,
      "llama.attention.head_count": HEADS,
      "llama.attention.head_count_kv": 1,
      "llama.attention.layer_norm_rms_epsilon": { float: 1e-5 },
      "llama.rope.dimension_count": WIDTH / HEADS,
      "llama.rope.freq_base": { float: 10_000 },
      "llama.vocab_size": tokens.length,
      "tokenizer.ggml.model": "gpt2",
      "tokenizer.ggml.pre": "smollm",
      "tokenizer.ggml.tokens": tokens,
      "tokenizer.ggml.token_type": kinds,
      "tokenizer.ggml.merges": [],
      "tokenizer.ggml.bos_token_id": id("<|start|>"),
      "tokenizer.ggml.eos_token_id": end,
      "tokenizer.ggml.add_bos_token": false,
      "tokenizer.chat_template": template,
    },
    tensors,
  );
}

/** GGUF version 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
function write(metadata, tensors) {
  const parts = [];
  let length = 0;
  const add = (bytes) => {
    parts.push(Buffer.from(bytes));
    length += bytes.length;
  };
  const pad = () => add(new Uint8Array((32 - (length % 32)) % 32));
  const u32 = (value) => add(new Uint8Array(Uint32Array.of(value).buffer));
  const u64 = (value) => add(new Uint8Array(BigUint64Array.of(BigInt(value)).buffer));
  const string = (text) => {
    const bytes = Buffer.from(text);
    u64(bytes.length);
    add(bytes);
  };
  const value = (item) => {
    if (Array.isArray(item)) {
      const strings = typeof item[0] !== "number";
      u32(ARRAY);
      u32(strings ? STRING : 4);
      u64(item.length);
      item.forEach(strings ? string : u32);
    } else if (typeof item === "string") {
      u32(STRING);
      string(item);
    } else if (typeof item === "boolean") {
      u32(7);
      add([item ? 1 : 0]);
    } else if (typeof item === "number") {
      u32(4);
      u32(item);
    } else {
      u32(6);
      add(new Uint8Array(Float32Array.of(item.float).buffer));
    }
  };
  add(Buffer.from("GGUF"));
  u32(3);
  u64(Object.keys(tensors).length);
  u64(Object.keys(metadata).length);
  for (const [key, item] of Object.entries(metadata)) {
    string(key);
    value(item);
  }
  let offset = 0;
  for (const [name, [shape, weights]] of Object.entries(tensors)) {
    string(name);
    u32(shape.length);
    shape.toReversed().forEach(u64);
    u32(0); // F32
    u64(offset);
    offset += Math.ceil(weights.byteLength / 32) * 32;
  }
  for (const [, weights] of Object.values(tensors)) {
    pad();
    add(new Uint8Array(weights.buffer));
  }
  pad();
  return Buffer.concat(parts);
}
