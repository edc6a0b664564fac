/** Files in the origin private file system: `foredraft/models/<key>/` holds `data` and the `record`. */
import type { Version } from "../http.js";
import { CHUNK_BYTES } from "../sources.js";
import type { KeptFile, Place } from "./place.js";
import { chunkLength, headLine, lastLine, parseRecord, type FileRecord } from "./record.js";

/** Of the `webworker` types, which would clash with the page's. */
interface SyncAccessHandle {
  read(buffer: Uint8Array, options?: { at: number }): number;
  write(buffer: Uint8Array, options?: { at: number }): number;
  truncate(size: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}
type SyncFileHandle = FileSystemFileHandle & { createSyncAccessHandle(): Promise<SyncAccessHandle> };

/** A worker that has just ended may hold its files for a moment longer. */
const BUSY_ATTEMPTS = 20;
const BUSY_DELAY_MS = 100;

const isMissing = (thrown: unknown) => thrown instanceof DOMException && thrown.name === "NotFoundError";

/** The file system of this origin; whatever it throws says why there is none. */
export class OpfsPlace implements Place {
  readonly name = "opfs";

  private constructor(private readonly root: FileSystemDirectoryHandle) {}

  /** Opens it; with `writable` also makes sure that files can be written bit by bit from here. */
  static async open(writable: boolean): Promise<OpfsPlace> {
    if (writable && !("createSyncAccessHandle" in FileSystemFileHandle.prototype)) {
      throw new Error("files cannot be written in place here");
    }
    const root = await navigator.storage.getDirectory();
    const mine = await root.getDirectoryHandle("foredraft", { create: true });
    return new OpfsPlace(await mine.getDirectoryHandle("models", { create: true }));
  }

  async find(key: string): Promise<FileRecord | undefined> {
    try {
      const folder = await this.root.getDirectoryHandle(key);
      const file = await (await folder.getFileHandle("record")).getFile();
      return parseRecord(await file.text());
    } catch (thrown) {
      if (isMissing(thrown)) return undefined;
      throw thrown;
    }
  }

  async openComplete(key: string, record: FileRecord): Promise<KeptFile> {
    const folder = await this.root.getDirectoryHandle(key);
    return new CompleteFile(record, await (await folder.getFileHandle("data")).getFile());
  }

  async openToWrite(key: string, url: string): Promise<KeptFile> {
    const folder = await this.root.getDirectoryHandle(key, { create: true });
    const data = await openHandle(folder, "data");
    let record: SyncAccessHandle | undefined;
    try {
      record = await openHandle(folder, "record");
      return new GrowingFile(url, data, record);
    } catch (thrown) {
      data.close();
      record?.close();
      throw thrown;
    }
  }

  async keys(): Promise<string[]> {
    const keys = [];
    for await (const key of this.root.keys()) keys.push(key);
    return keys;
  }

  async remove(key: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.root.removeEntry(key, { recursive: true });
      } catch (thrown) {
        if (isMissing(thrown)) return;
        if (attempt === BUSY_ATTEMPTS) throw thrown;
        await pause();
      }
    }
  }
}

async function openHandle(folder: FileSystemDirectoryHandle, name: string): Promise<SyncAccessHandle> {
  const file = (await folder.getFileHandle(name, { create: true })) as SyncFileHandle;
  for (let attempt = 1; ; attempt++) {
    try {
      return await file.createSyncAccessHandle();
    } catch (thrown) {
      const busy = thrown instanceof DOMException && thrown.name === "NoModificationAllowedError";
      if (!busy || attempt === BUSY_ATTEMPTS) throw thrown;
      await pause();
    }
  }
}

const pause = () => new Promise((resolve) => setTimeout(resolve, BUSY_DELAY_MS));

/** A complete file: any number of tabs may read it at once. */
class CompleteFile implements KeptFile {
  constructor(
    readonly record: FileRecord,
    private readonly data: File,
  ) {}

  async read(index: number): Promise<Uint8Array<ArrayBuffer>> {
    const start = index * CHUNK_BYTES;
    const end = start + chunkLength(index, this.record.complete?.size);
    return new Uint8Array(await this.data.slice(start, end).arrayBuffer());
  }

  append = readOnly;
  restart = readOnly;
  dropLast = readOnly;
  seal = readOnly;
  close(): void {}
}

function readOnly(): Promise<never> {
  return Promise.reject(new TypeError("a complete file is not written to"));
}

/** A file on its way. Chunks are written before the record knows them. */
class GrowingFile implements KeptFile {
  readonly record: FileRecord;
  private recordBytes = 0;

  constructor(
    private readonly url: string,
    private readonly data: SyncAccessHandle,
    private readonly log: SyncAccessHandle,
  ) {
    const bytes = new Uint8Array(log.getSize());
    log.read(bytes, { at: 0 });
    this.record = parseRecord(new TextDecoder().decode(bytes)) ?? { url, version: {}, digests: [] };
    // Without lines that were cut off or make no sense.
    this.rewrite(this.record);
  }

  async read(index: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(chunkLength(index, this.record.version.size));
    return bytes.subarray(0, this.data.read(bytes, { at: index * CHUNK_BYTES }));
  }

  async append(bytes: Uint8Array<ArrayBuffer>, digest: string): Promise<void> {
    write(this.data, bytes, this.record.digests.length * CHUNK_BYTES);
    this.addLine(`${digest}\n`);
    this.record.digests.push(digest);
  }

  async restart(version: Version): Promise<void> {
    this.data.truncate(0);
    this.rewrite({ url: this.url, version, digests: [] });
  }

  async dropLast(): Promise<void> {
    this.rewrite({ ...this.record, digests: this.record.digests.slice(0, -1) });
  }

  async seal(sha256: string, size: number): Promise<void> {
    this.data.truncate(size);
    this.data.flush();
    this.addLine(lastLine(sha256, size));
    this.log.flush();
    this.record.complete = { sha256, size };
  }

  close(): void {
    this.data.close();
    this.log.close();
  }

  private rewrite(record: FileRecord): void {
    Object.assign(this.record, record);
    delete this.record.complete;
    this.log.truncate(0);
    this.recordBytes = 0;
    this.addLine([headLine(record.url, record.version), ...record.digests.map((digest) => `${digest}\n`)].join(""));
  }

  private addLine(line: string): void {
    const bytes = new TextEncoder().encode(line);
    write(this.log, bytes, this.recordBytes);
    this.recordBytes += bytes.length;
  }
}

/** Writes all of `bytes`; where only some fit the disk or the quota is full. */
function write(handle: SyncAccessHandle, bytes: Uint8Array, at: number): void {
  if (handle.write(bytes, { at }) < bytes.length) throw new DOMException("the storage is full", "QuotaExceededError");
}
