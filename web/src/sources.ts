/**
 * Where the bytes of a model come from. The engine reads forward only and asks for ranges; each source answers from a few
 * megabytes at a time, so that a model is never whole in memory.
 */
import { ForedraftError, reasonOf } from "./errors.js";

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
/** Bytes that one request asks for, and that are kept together in storage. */
export const CHUNK_BYTES = 4 * MIB;
/** Chunks requested ahead of the one being read. */
const READ_AHEAD = 2;

/** Options of {@link ChunkedSource}. */
export interface ChunkOptions {
  /** A chunk that has been asked for already. */
  first?: { index: number; bytes: Promise<Uint8Array> };
  /** Chunks to ask for ahead of the one being read. */
  readAhead?: number;
}

/** Anything that gives a range of bytes, read in aligned chunks and a little ahead. */
export class ChunkedSource implements ByteSource {
  private readonly readAhead: number;
  private readonly chunks = new Map<number, Promise<Uint8Array>>();

  constructor(
    readonly name: string,
    readonly size: number | undefined,
    private readonly fetchChunk: (start: number, end: number) => Promise<Uint8Array>,
    private readonly abort: AbortController,
    { first, readAhead = READ_AHEAD }: ChunkOptions = {},
  ) {
    this.readAhead = readAhead;
    if (first) this.chunks.set(first.index, first.bytes);
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
    for (let i = index; i <= index + this.readAhead; i++) {
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
      const reason = reasonOf(cause);
      const message = `${name}: bytes ${start} to ${end} could not be read: ${reason}`;
      throw new ForedraftError("io", message, { file: name }, { cause });
    }
  };
  return new ChunkedSource(name, blob.size, slice, new AbortController());
}

/** One array of all pieces; a single piece is given as it is. */
export function join(pieces: Uint8Array[]): Uint8Array {
  if (pieces.length === 1) return pieces[0]!;
  const out = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}
