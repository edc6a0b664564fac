/** A complete file in storage. Each chunk is checked against its SHA-256 before anyone sees it. */
import type { ForedraftError } from "../errors.js";
import { CHUNK_BYTES, ChunkedSource, type ChunkOptions } from "../sources.js";
import { lockToDelete } from "./locks.js";
import { mismatch, type ModelFile, type StorageOutcome } from "./model.js";
import type { KeptFile, Place } from "./place.js";
import { sha256, storedBytes } from "./record.js";

/** Reads `file`, which nobody changes while the shared lock behind `release` is held. */
export class StoredFile extends ChunkedSource implements ModelFile {
  constructor(
    private readonly place: Place,
    private readonly key: string,
    private readonly file: KeptFile,
    private readonly release: () => void,
    options: ChunkOptions = {},
  ) {
    const chunk = (start: number) => this.chunk(start / CHUNK_BYTES);
    super(file.record.url, storedBytes(file.record), chunk, new AbortController(), options);
  }

  private async chunk(index: number): Promise<Uint8Array> {
    // A file that the browser has taken away in the meantime reads as nothing.
    const bytes = await this.file.read(index).catch(() => new Uint8Array(0));
    const [expected, found] = [this.file.record.digests[index] ?? "", await sha256(bytes)];
    if (expected === found) return bytes;
    await this.discard();
    throw mismatch(this.name, expected, found, `what was kept of it from byte ${index * CHUNK_BYTES} on has changed`);
  }

  private async discard(): Promise<void> {
    this.release();
    const alone = await lockToDelete(this.key);
    if (!alone) return; // another tab reads it, and will see for itself
    try {
      await this.place.remove(this.key);
    } finally {
      alone();
    }
  }

  /** What the engine did not read makes no difference to it. */
  async finish(): Promise<void> {}

  async refused(error: ForedraftError): Promise<ForedraftError> {
    return error; // every byte that it saw was right
  }

  outcome(): StorageOutcome {
    return { url: this.name, from: "storage", kept: this.place.name };
  }

  override close(): void {
    super.close();
    this.file.close();
    this.release();
  }
}
