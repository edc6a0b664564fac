/** What a place to keep files in has to offer; OPFS and the Cache API are the two there are. */
import type { Version } from "../http.js";
import type { FileRecord } from "./record.js";

/** Names of places. */
export type PlaceName = "opfs" | "cache";

/** One kept file, opened to be read, or to be written and read. Whoever opens it holds its lock. */
export interface KeptFile {
  readonly record: FileRecord;
  /** Bytes of chunk `index`, fewer or none where they are gone. */
  read(index: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Adds the chunk that comes next. */
  append(bytes: Uint8Array<ArrayBuffer>, digest: string): Promise<void>;
  /** Forgets what there is and begins with another version of the file. */
  restart(version: Version): Promise<void>;
  /** Drops the last chunk. */
  dropLast(): Promise<void>;
  /** Marks the file as complete. */
  seal(sha256: string, size: number): Promise<void>;
  close(): void;
}

/** Where files are kept, by the keys of {@link keyOf}. */
export interface Place {
  readonly name: PlaceName;
  /** The record of a file, or undefined where there is none. */
  find(key: string): Promise<FileRecord | undefined>;
  /** A complete file, to read. */
  openComplete(key: string, record: FileRecord): Promise<KeptFile>;
  /** A file to write: a new one, or what there is of it. */
  openToWrite(key: string, url: string): Promise<KeptFile>;
  /** Keys of all files. */
  keys(): Promise<string[]>;
  remove(key: string): Promise<void>;
}
