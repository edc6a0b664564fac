/**
 * What is known of a kept file, as text beside its bytes. A first line says which file it is; then comes one line with the
 * SHA-256 of each chunk, added as chunks arrive, so that a download can be continued and stored bytes be checked before use;
 * a last line ends a complete file with the SHA-256 of the whole.
 */
import { difference, type Version } from "../http.js";
import { CHUNK_BYTES } from "../sources.js";

/** Counts up when the format changes; files of another format are downloaded anew. */
const FORMAT = 1;

/** A kept file, or the part of it that has arrived. */
export interface FileRecord {
  url: string;
  version: Version;
  /** SHA-256 of each chunk that is there, in hexadecimal. */
  digests: string[];
  /** SHA-256 of the file and its size, once it is complete. */
  complete?: { sha256: string; size: number };
}

const isDigest = (text: string) => /^[0-9a-f]{64}$/.test(text);

/** The first line of a record. */
export function headLine(url: string, version: Version): string {
  return `${JSON.stringify({ format: FORMAT, chunk_bytes: CHUNK_BYTES, url, version })}\n`;
}

/** The last line of a record. */
export function lastLine(sha256: string, size: number): string {
  return `${JSON.stringify({ sha256, size })}\n`;
}

/** The record of a text; undefined where it is none of ours. A line that was cut off counts as not written. */
export function parseRecord(text: string): FileRecord | undefined {
  const lines = text.split("\n").slice(0, -1);
  const head = object(lines.shift());
  if (head?.["format"] !== FORMAT || head["chunk_bytes"] !== CHUNK_BYTES || typeof head["url"] !== "string") return undefined;
  const record: FileRecord = { url: head["url"], version: (head["version"] ?? {}) as Version, digests: [] };
  for (const line of lines) {
    if (isDigest(line)) {
      record.digests.push(line);
      continue;
    }
    const last = object(line);
    const [sha256, size] = [last?.["sha256"], last?.["size"]];
    const all = typeof size === "number" && record.digests.length === Math.ceil(size / CHUNK_BYTES);
    if (all && typeof sha256 === "string" && isDigest(sha256)) record.complete = { sha256, size };
    break;
  }
  return record;
}

function object(line: string | undefined): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line ?? "");
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** Bytes of the file that are there. */
export function storedBytes({ digests, version, complete }: FileRecord): number {
  return complete?.size ?? Math.min(digests.length * CHUNK_BYTES, version.size ?? Infinity);
}

/** Length of chunk `index` where the file has `size` bytes. */
export function chunkLength(index: number, size: number | undefined): number {
  return Math.max(0, Math.min(CHUNK_BYTES, (size ?? Infinity) - index * CHUNK_BYTES));
}

/** What has changed since the record was made, in words. */
export function changed(record: FileRecord, found: Version): string | undefined {
  return difference(record.version, found);
}

/** SHA-256 in hexadecimal. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}

/** Where a file is kept: a name that any file system takes. What stands behind `#` no server is asked for. */
export async function keyOf(url: string): Promise<string> {
  return (await sha256(new TextEncoder().encode(url.split("#")[0]))).slice(0, 32);
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
