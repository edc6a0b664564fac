/** From what a developer names as a model to what a message to the worker can carry. */
import { ForedraftError } from "./errors.js";
import type { ModelRef, Piece } from "./protocol.js";
import { known } from "./request.js";

/** A GGUF model: its address, a file, or a stream of its bytes. */
export type ModelSource = string | URL | ModelUrl | Blob | ReadableStream<Uint8Array>;

/** A model's address, and what has to be there. */
export interface ModelUrl {
  url: string | URL;
  /** SHA-256 of the file in hexadecimal: other bytes are refused with `checksum_mismatch`. */
  sha256?: string;
}

/** A model on its way to the worker. */
export interface SentModel {
  ref: ModelRef;
  /** What has to be transferred with it. */
  transfer: Transferable[];
  /** Gives up what is left of a stream. To be called when the load has settled, however it did. */
  dispose(): void;
}

const nothing = () => {};

/** The reference for `model`. */
export function modelRef(model: ModelSource, option: string): SentModel {
  if (typeof model === "string" || model instanceof URL) {
    return { ref: { kind: "url", url: absolute(model, option) }, transfer: [], dispose: nothing };
  }
  if (isModelUrl(model)) {
    known(model, ["url", "sha256"], `${option}.`);
    const ref: ModelRef = { kind: "url", url: absolute(model.url, `${option}.url`) };
    if (model.sha256 !== undefined) ref.sha256 = digest(model.sha256, `${option}.sha256`);
    return { ref, transfer: [], dispose: nothing };
  }
  if (model instanceof Blob) {
    const name = model instanceof File ? model.name : "blob";
    return { ref: { kind: "blob", blob: model, name }, transfer: [], dispose: nothing };
  }
  if (model instanceof ReadableStream) {
    if (model.locked) {
      throw new ForedraftError("bad_option", `${option} is a stream that something else reads already, expected one of its own`);
    }
    const { port1, port2 } = new MessageChannel();
    const dispose = serveStream(model, port1);
    return { ref: { kind: "port", port: port2, name: "stream" }, transfer: [port2], dispose };
  }
  const found = `${option} is ${typeof model}`;
  throw new ForedraftError("bad_option", `${found}, expected a URL, { url, sha256 }, a File or Blob, or a ReadableStream`);
}

function isModelUrl(model: ModelSource): model is ModelUrl {
  return typeof model === "object" && model !== null && "url" in model;
}

function digest(sha256: unknown, option: string): string {
  if (typeof sha256 === "string" && /^[0-9a-f]{64}$/i.test(sha256)) return sha256.toLowerCase();
  throw new ForedraftError("bad_option", `${option} is "${String(sha256)}", expected 64 hexadecimal digits`);
}

/** An absolute address: the worker's own base is its script, not the page. */
export function absolute(url: string | URL, option: string): string {
  const base = typeof document === "undefined" ? globalThis.location?.href : document.baseURI;
  try {
    return new URL(url, base).href;
  } catch (cause) {
    throw new ForedraftError("bad_option", `${option} is "${String(url)}", expected a URL`, {}, { cause });
  }
}

/**
 * Answers each message to `port` with the next piece of `stream`. Not every browser can transfer a stream itself, and this
 * way only one piece is in flight. Gives the function that ends it: the worker may be gone before it could say so.
 */
function serveStream(stream: ReadableStream<Uint8Array>, port: MessagePort): () => void {
  const reader = stream.getReader();
  const answer = (piece: Piece, transfer: Transferable[] = []) => port.postMessage(piece, transfer);
  let ended = false;
  const end = () => {
    if (ended) return;
    ended = true;
    // A load in this very thread may wait for a piece: it would wait for ever.
    answer({ error: ForedraftError.aborted().toWire() });
    port.close();
    reader.cancel().catch(nothing); // also of a stream that failed by itself
    reader.releaseLock();
  };
  port.onmessage = async ({ data }: MessageEvent<"pull" | "cancel">) => {
    if (data === "cancel") return end();
    try {
      const { value, done } = await reader.read();
      if (done) return answer({ end: true });
      if (!(value instanceof Uint8Array)) throw new TypeError("the stream gives something else than Uint8Array");
      const bytes = value.slice(); // the caller may still hold the original
      answer({ bytes }, [bytes.buffer]);
    } catch (thrown) {
      answer({ error: ForedraftError.from(thrown, "io").toWire() });
    }
  };
  return end;
}
