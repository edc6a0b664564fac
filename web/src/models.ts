/** From what a developer names as a model to what a message to the worker can carry. */
import { ForedraftError } from "./errors.js";
import type { ModelRef, Piece } from "./protocol.js";

/** A GGUF model: its address, a file, or a stream of its bytes. */
export type ModelSource = string | URL | Blob | ReadableStream<Uint8Array>;

/** The reference for `model`, and what has to be transferred with it. */
export function modelRef(model: ModelSource, option: string): { ref: ModelRef; transfer: Transferable[] } {
  if (typeof model === "string" || model instanceof URL) {
    return { ref: { kind: "url", url: absolute(model, option) }, transfer: [] };
  }
  if (model instanceof Blob) {
    return { ref: { kind: "blob", blob: model, name: model instanceof File ? model.name : "blob" }, transfer: [] };
  }
  if (model instanceof ReadableStream) {
    const { port1, port2 } = new MessageChannel();
    serveStream(model, port1);
    return { ref: { kind: "port", port: port2, name: "stream" }, transfer: [port2] };
  }
  throw new ForedraftError("bad_option", `${option} is ${typeof model}, expected a URL, a File or Blob, or a ReadableStream`);
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
 * way only one piece is in flight.
 */
function serveStream(stream: ReadableStream<Uint8Array>, port: MessagePort): void {
  const reader = stream.getReader();
  const answer = (piece: Piece, transfer: Transferable[] = []) => port.postMessage(piece, transfer);
  port.onmessage = async ({ data }: MessageEvent<"pull" | "cancel">) => {
    if (data === "cancel") {
      port.close();
      await reader.cancel().catch(() => {});
      return;
    }
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
}
