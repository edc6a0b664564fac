/**
 * Where the bytes of a model come from. The engine reads forward only and asks for ranges; each source answers from a few
 * megabytes at a time, so that a model is never whole in memory.
 */
import { ForedraftError } from "./errors.js";

/** What the engine reads from: offsets never go back. */
export interface ByteSource {
  /** Name in messages: a URL, a file name. */
  readonly name: string;
  /** Length in bytes, where it is known. */
  readonly size: number | undefined;
  /** Reads up to `length` bytes at `offset`; fewer only where the source ends. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Stops what is in flight and frees what was read ahead. */
  close(): void;
}

/** The next piece of a stream, or undefined at its end. */
export type Pull = () => Promise<Uint8Array | undefined>;

const MIB = 1 << 20;
/** Bytes that one request asks for. */
const CHUNK_BYTES = 4 * MIB;
/** Chunks requested ahead of the one being read. */
const READ_AHEAD = 2;
/** Requests in a row that bring nothing before a download counts as failed. */
const ATTEMPTS = 4;
const RETRY_DELAY_MS = 400;

/** Anything that gives a range of bytes, read in aligned chunks and a little ahead. */
class ChunkedSource implements ByteSource {
  private readonly chunks = new Map<number, Promise<Uint8Array>>();

  constructor(
    readonly name: string,
    readonly size: number | undefined,
    private readonly fetchChunk: (start: number, end: number) => Promise<Uint8Array>,
    private readonly abort: AbortController,
    first?: Promise<Uint8Array>,
  ) {
    if (first) this.chunks.set(0, first);
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const end = Math.min(offset + length, this.size ?? Number.MAX_SAFE_INTEGER);
    const pieces: Uint8Array[] = [];
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / CHUNK_BYTES);
      this.request(index);
      const chunk = await this.chunks.get(index)!;
      const within = at - index * CHUNK_BYTES;
      const piece = chunk.subarray(within, within + (end - at));
      if (piece.length === 0) break;
      pieces.push(piece);
      at += piece.length;
      if (chunk.length < CHUNK_BYTES && within + piece.length === chunk.length) break;
    }
    return join(pieces);
  }

  /** Asks for chunk `index` and those after it, and forgets those before. */
  private request(index: number): void {
    for (const key of this.chunks.keys()) if (key < index) this.chunks.delete(key);
    for (let i = index; i <= index + READ_AHEAD; i++) {
      const start = i * CHUNK_BYTES;
      if (this.chunks.has(i) || (this.size !== undefined && start >= this.size)) continue;
      // Without a known size only the chunk that is needed may be asked for: those after it may not exist.
      if (this.size === undefined && i > index) break;
      const chunk = this.fetchChunk(start, Math.min(start + CHUNK_BYTES, this.size ?? Number.MAX_SAFE_INTEGER));
      chunk.catch(() => {}); // whoever reads it gets the error; nobody may ever do so
      this.chunks.set(i, chunk);
    }
  }

  close(): void {
    this.abort.abort();
    this.chunks.clear();
  }
}

/** A stream: bytes before the offset that is asked for are skipped. */
export class StreamSource implements ByteSource {
  private position = 0;
  private rest: Uint8Array = new Uint8Array(0);
  private ended = false;

  constructor(
    readonly name: string,
    readonly size: number | undefined,
    private readonly pull: Pull,
    private readonly cancel: () => void,
  ) {}

  async read(offset: number, length: number): Promise<Uint8Array> {
    if (offset < this.position) {
      throw new ForedraftError("io", `${this.name}: a stream cannot go back from byte ${this.position} to ${offset}`);
    }
    const pieces: Uint8Array[] = [];
    const end = offset + length;
    while (this.position < end) {
      if (this.rest.length === 0 && !(await this.refill())) break;
      const skip = Math.min(Math.max(offset - this.position, 0), this.rest.length);
      const take = Math.min(this.rest.length - skip, end - this.position - skip);
      if (take > 0) pieces.push(this.rest.subarray(skip, skip + take));
      this.rest = this.rest.subarray(skip + take);
      this.position += skip + take;
    }
    return join(pieces);
  }

  private async refill(): Promise<boolean> {
    if (this.ended) return false;
    const next = await this.pull();
    if (next === undefined) {
      this.ended = true;
      // A server that promised more than it sent has dropped the connection.
      const arrived = this.position + this.rest.length;
      if (this.size !== undefined && arrived < this.size) {
        const message = `${this.name}: the connection closed after ${arrived} of ${this.size} bytes; try again`;
        throw new ForedraftError("download_failed", message, { received_bytes: arrived, total_bytes: this.size });
      }
      return false;
    }
    this.rest = next;
    return true;
  }

  close(): void {
    this.ended = true;
    this.rest = new Uint8Array(0);
    this.cancel();
  }
}

/** A `File` or `Blob`, read by slices. */
export function openBlob(blob: Blob, name: string): ByteSource {
  const slice = async (start: number, end: number): Promise<Uint8Array> => {
    try {
      return new Uint8Array(await blob.slice(start, end).arrayBuffer());
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      const message = `${name}: bytes ${start} to ${end} could not be read: ${reason}`;
      throw new ForedraftError("io", message, { file: name }, { cause });
    }
  };
  return new ChunkedSource(name, blob.size, slice, new AbortController());
}

/** A URL, read by ranges, or as one stream where the server knows no ranges. */
export async function openUrl(url: string): Promise<ByteSource> {
  const abort = new AbortController();
  const response = await request(url, 0, CHUNK_BYTES, abort.signal);
  if (response.status === 200) return openResponse(url, response, abort);
  const size = rangeTotal(response) ?? (await lengthByHead(url, abort.signal));
  const first = body(response, url, 0, Math.min(CHUNK_BYTES, size ?? CHUNK_BYTES), size, abort.signal);
  first.catch(() => {}); // the first read gets the error
  const chunk = async (start: number, end: number) => {
    try {
      return await body(undefined, url, start, end, size, abort.signal);
    } catch (thrown) {
      // Where the size is hidden, a range that cannot be satisfied is how the end shows.
      const status = thrown instanceof ForedraftError ? thrown.details["status"] : undefined;
      if (size === undefined && status === 416) return new Uint8Array(0);
      throw thrown;
    }
  };
  return new ChunkedSource(url, size, chunk, abort, first);
}

/** The whole file as one response: its body is the stream. */
function openResponse(url: string, response: Response, abort: AbortController): ByteSource {
  const length = response.headers.get("Content-Length");
  // With a content encoding the length counts encoded bytes.
  const size = length !== null && !response.headers.get("Content-Encoding") ? Number(length) : undefined;
  const reader = response.body?.getReader();
  const pull: Pull = async () => {
    try {
      return (await reader?.read())?.value;
    } catch (cause) {
      throw failure(url, cause);
    }
  };
  return new StreamSource(url, size, pull, () => abort.abort());
}

/** Asks for bytes `start..end`; statuses that will not get better are errors at once, others are tried again. */
async function request(url: string, start: number, end: number, signal: AbortSignal): Promise<Response> {
  for (let attempt = 1; ; attempt++) {
    let problem: ForedraftError;
    try {
      // A range is of the file itself only without a content encoding; fetch sends none for ranges.
      const response = await fetch(url, { headers: { Range: `bytes=${start}-${end - 1}` }, signal });
      if (response.status === 206 || (response.status === 200 && start === 0)) return response;
      await response.body?.cancel();
      const status = `${response.status} ${response.statusText}`.trim();
      const why = response.status === 200 ? "the server stopped answering ranges" : `the server answered ${status}`;
      problem = new ForedraftError("download_failed", `${url}: ${why}`, { url, status: response.status });
      if (response.status < 500 && response.status !== 429 && response.status !== 408) throw problem;
    } catch (thrown) {
      if (thrown instanceof ForedraftError) throw thrown;
      if (signal.aborted) throw ForedraftError.aborted(signal);
      problem = failure(url, thrown);
    }
    if (attempt === ATTEMPTS) throw problem;
    await pause(attempt);
  }
}

/** Reads bytes `start..end` whole; where the connection drops, asks for the rest. */
async function body(
  response: Response | undefined,
  url: string,
  start: number,
  end: number,
  size: number | undefined,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const buffer = new Uint8Array(end - start);
  let filled = 0;
  let failures = 0;
  for (;;) {
    const before = filled;
    const answer = response ?? (await request(url, start + filled, end, signal));
    response = undefined;
    const reader = answer.body?.getReader();
    let problem: unknown;
    try {
      checkRange(answer, url, start + filled, size);
      while (filled < buffer.length) {
        const piece = (await reader?.read())?.value;
        if (!piece) break;
        const fits = piece.subarray(0, buffer.length - filled);
        buffer.set(fits, filled);
        filled += fits.length;
      }
    } catch (thrown) {
      if (signal.aborted) throw ForedraftError.aborted(signal);
      if (thrown instanceof ForedraftError) throw thrown;
      problem = thrown;
    } finally {
      reader?.cancel().catch(() => {}); // a server may send more than it was asked for
    }
    if (filled === buffer.length) return buffer;
    // Without a known size a short answer is the end of the file.
    if (!problem && size === undefined) return buffer.subarray(0, filled);
    // A connection that drops now and then still brings the file; only one that brings nothing counts up.
    failures = filled > before ? 1 : failures + 1;
    if (failures === ATTEMPTS) throw failure(url, problem ?? new Error(`the connection closed after ${start + filled} bytes`));
    await pause(failures);
  }
}

/** Waits after the `failures`-th failure in a row, longer each time. */
function pause(failures: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, RETRY_DELAY_MS * 2 ** (failures - 1)));
}

/** Refuses an answer that says it holds other bytes than those from `start`, or that the file has another size now. */
function checkRange(answer: Response, url: string, start: number, size: number | undefined): void {
  const total = rangeTotal(answer);
  if (size !== undefined && total !== undefined && total !== size) {
    const message = `${url}: the file changed while it was read: it was ${size} bytes and is now ${total}`;
    throw new ForedraftError("download_failed", message, { url, found: total, expected: size });
  }
  const first = /^bytes\s+(\d+)-/.exec(answer.headers.get("Content-Range") ?? "")?.[1];
  if (first !== undefined && Number(first) !== start) {
    const message = `${url}: the server, or a proxy before it, answered bytes from ${first} on, expected those from ${start} on`;
    throw new ForedraftError("download_failed", message, { url, found: Number(first), expected: start });
  }
}

/** Total length from `Content-Range: bytes a-b/total`; servers of other origins may hide the header. */
function rangeTotal(response: Response): number | undefined {
  const total = /\/(\d+)\s*$/.exec(response.headers.get("Content-Range") ?? "")?.[1];
  return total === undefined ? undefined : Number(total);
}

async function lengthByHead(url: string, signal: AbortSignal): Promise<number | undefined> {
  try {
    const response = await fetch(url, { method: "HEAD", signal });
    const length = response.headers.get("Content-Length");
    return response.ok && length !== null && !response.headers.get("Content-Encoding") ? Number(length) : undefined;
  } catch {
    return undefined; // the length is a help, not a need
  }
}

function failure(url: string, cause: unknown): ForedraftError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const hint = "check the address, the network, and that the server allows this origin (CORS)";
  return new ForedraftError("download_failed", `${url}: ${reason}; ${hint}`, { url }, { cause });
}

/** One array of all pieces; a single piece is given as it is. */
function join(pieces: Uint8Array[]): Uint8Array {
  if (pieces.length === 1) return pieces[0]!;
  const out = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}
