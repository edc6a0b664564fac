/** A file on its way from the network: hashed, and kept where that is possible, while the engine reads it. */
import { ForedraftError, reasonOf } from "../errors.js";
import type { UrlSource } from "../http.js";
import { CHUNK_BYTES, join } from "../sources.js";
import { Announcer, lockToDelete } from "./locks.js";
import { isOfFile, mismatch, type Hasher, type ModelFile, type StorageOutcome, type Wanted } from "./model.js";
import type { KeptFile, Place } from "./place.js";
import { sha256 } from "./record.js";

/** A file that is being written, with its lock held. */
export interface Keeping {
  place: Place;
  key: string;
  file: KeptFile;
  release: () => void;
}

/**
 * Chunks in order, first those that are stored already and then those of the network, each through the hash and into
 * storage before anyone reads it. Nothing is skipped: what the engine passes over is part of the file too.
 */
export class Download implements ModelFile {
  readonly name: string;
  readonly size: number | undefined;
  private readonly hash: Hasher | undefined;
  private readonly announcer: Announcer | undefined;
  /** Chunks that were there when the load began. */
  private readonly stored: number;
  private next = 0;
  private chunk: Uint8Array = new Uint8Array(0);
  private chunkAt = 0;
  private ended = false;
  /** Where the file is, once it is no longer held. */
  private left: { place: Place; key: string } | undefined;
  private readonly result: StorageOutcome;

  /** `origin` may be missing where every chunk is stored; `keeping` where nothing is to be kept, for the reason given. */
  constructor(
    private readonly wanted: Wanted,
    private readonly origin: UrlSource | undefined,
    private keeping: Keeping | undefined,
    reason?: ForedraftError,
  ) {
    this.name = wanted.url;
    this.size = origin?.size ?? keeping?.file.record.version.size;
    if (keeping || wanted.sha256 !== undefined) this.hash = wanted.hasher();
    this.stored = keeping?.file.record.digests.length ?? 0;
    if (keeping) this.announcer = new Announcer(keeping.key);
    const from = this.stored === 0 ? "network" : origin ? "network and storage" : "storage";
    this.result = { url: wanted.url, from, kept: keeping?.place.name ?? null };
    if (reason) this.unkept(reason);
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    if (offset < this.chunkAt) {
      throw new ForedraftError("io", `${this.name}: a download cannot go back from byte ${this.chunkAt} to ${offset}`);
    }
    const pieces: Uint8Array[] = [];
    for (let at = offset; at < offset + length; ) {
      const piece = this.chunk.subarray(at - this.chunkAt, offset + length - this.chunkAt);
      at += piece.length;
      if (piece.length > 0) pieces.push(piece);
      else if (!(await this.advance())) break;
    }
    return join(pieces);
  }

  async finish(): Promise<void> {
    while (await this.advance());
  }

  /** Stops writing and goes on without; chunks that are stored are still read. */
  private unkept(reason: ForedraftError): void {
    if (this.wanted.mode === "require") throw reason;
    this.result.kept = null;
    this.result.reason = reason.message;
    this.wanted.onUnkept(reason);
  }

  /** Takes the next chunk; false at the end. */
  private async advance(): Promise<boolean> {
    if (this.ended) return false;
    const index = this.next;
    const bytes = index < this.stored ? await this.fromStorage(index) : await this.fromNetwork(index);
    this.hash?.update(bytes);
    this.chunkAt = index * CHUNK_BYTES;
    this.chunk = bytes;
    this.next++;
    const loaded = this.chunkAt + bytes.length;
    this.announcer?.tell({ loaded, total: this.size ?? 0 });
    this.ended = bytes.length < CHUNK_BYTES || loaded === this.size;
    if (this.ended) await this.complete(loaded);
    return bytes.length > 0;
  }

  private async fromStorage(index: number): Promise<Uint8Array<ArrayBuffer>> {
    const { file } = this.keeping!;
    const bytes = await file.read(index);
    const [expected, found] = [file.record.digests[index]!, await sha256(bytes)];
    if (expected !== found) {
      await this.discard();
      throw mismatch(this.wanted.url, expected, found, `what was kept of it from byte ${index * CHUNK_BYTES} on has changed`);
    }
    if (index === this.stored - 1 && this.result.kept === null) this.letGo();
    return bytes;
  }

  private async fromNetwork(index: number): Promise<Uint8Array<ArrayBuffer>> {
    // What sources give are arrays of their own, never shared memory.
    const bytes = (await this.origin!.read(index * CHUNK_BYTES, CHUNK_BYTES)) as Uint8Array<ArrayBuffer>;
    if (this.keeping && this.result.kept !== null && bytes.length > 0) {
      try {
        await this.keeping.file.append(bytes, await sha256(bytes));
      } catch (cause) {
        const full = cause instanceof DOMException && cause.name === "QuotaExceededError";
        this.unkept(full ? this.storageFull(cause) : notKept(this.wanted.url, this.keeping.place, cause));
        this.letGo();
      }
    }
    return bytes;
  }

  /** Browsers are vague about how much room there is: that it is too little may show only now. */
  private storageFull(cause: DOMException): ForedraftError {
    const [url, stored_bytes] = [this.wanted.url, this.keeping!.file.record.digests.length * CHUNK_BYTES];
    const needed_bytes = this.size === undefined ? undefined : this.size - stored_bytes;
    const of = this.size === undefined ? "" : ` of ${mb(this.size)}`;
    const message = `${url} cannot be kept on this device: storage is full after ${mb(stored_bytes)}${of}; ${REMEDY}`;
    return new ForedraftError("quota_exceeded", message, { url, needed_bytes, stored_bytes }, { cause });
  }

  /** All bytes have arrived: are they those that were wanted? */
  private async complete(size: number): Promise<void> {
    const [expected, found] = [this.wanted.sha256, this.hash?.finish() ?? ""];
    if (expected !== undefined && expected !== found) {
      await this.discard();
      throw mismatch(this.wanted.url, expected, found, "the file is not the one that was asked for");
    }
    if (this.keeping && this.result.kept !== null) {
      try {
        await this.keeping.file.seal(found, size);
      } catch (cause) {
        this.unkept(notKept(this.wanted.url, this.keeping.place, cause));
      }
    }
    this.letGo();
  }

  async refused(error: ForedraftError): Promise<ForedraftError> {
    // Whatever came is no model, or a damaged one: the next load is to ask the server again.
    if (isOfFile(error)) await this.discard();
    return error;
  }

  outcome(): StorageOutcome {
    return this.result;
  }

  /** Removes what is stored. */
  private async discard(): Promise<void> {
    const { place, key } = this.keeping ?? this.left ?? {};
    if (!place || !key) return;
    const release = this.keeping?.release ?? (await lockToDelete(key));
    if (!release) return; // another tab reads it, and will see for itself
    this.keeping?.file.close();
    this.keeping = undefined;
    this.result.kept = null;
    try {
      await place.remove(key);
    } finally {
      release();
    }
  }

  /** Lets other tabs have the file. */
  private letGo(): void {
    if (!this.keeping) return;
    const { place, key, file, release } = this.keeping;
    this.left = { place, key };
    this.keeping = undefined;
    file.close();
    release();
  }

  close(): void {
    this.origin?.close();
    this.letGo();
    this.announcer?.close();
    this.hash?.free();
  }
}

const REMEDY = "delete stored models or free disk space";
const mb = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;

/** The error for a file that does not fit, with the numbers. */
export function quotaExceeded(url: string, needed_bytes: number, quota_bytes: number, usage_bytes: number): ForedraftError {
  const free_bytes = Math.max(0, quota_bytes - usage_bytes);
  const room = `the browser lets this site have ${mb(quota_bytes)}, of which ${mb(free_bytes)} are free`;
  const message = `${url} cannot be kept on this device: it needs ${mb(needed_bytes)}, and ${room}; ${REMEDY}`;
  return new ForedraftError("quota_exceeded", message, { url, needed_bytes, free_bytes, quota_bytes, usage_bytes });
}

/** The error for a place that fails. */
export function notKept(url: string, place: Place, cause: unknown): ForedraftError {
  const reason = reasonOf(cause);
  const message = `${url} cannot be kept on this device (${place.name}): ${reason}`;
  return new ForedraftError("storage_unavailable", message, { url }, { cause });
}
