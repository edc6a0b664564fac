/** A model file as the host sees it, wherever its bytes are. */
import { ForedraftError } from "../errors.js";
import type { ByteSource } from "../sources.js";
import type { Arrived } from "./locks.js";
import type { PlaceName } from "./place.js";

/**
 * Whether files that come by URL are kept for the next load: `"auto"` keeps them where there is room and runs without
 * keeping them where there is none, `"require"` fails there, and `"off"` neither keeps nor looks for them.
 */
export type StorageMode = "auto" | "require" | "off";

/** What became of a model's file. */
export interface StorageOutcome {
  url: string;
  /** Where its bytes came from. */
  from: "network" | "storage" | "network and storage";
  /** Where it is kept for the next load: in the origin private file system, in the Cache API, or nowhere. */
  kept: PlaceName | null;
  /** Why it is not kept. */
  reason?: string;
}

/** SHA-256 piece by piece, which WebCrypto cannot. */
export interface Hasher {
  update(bytes: Uint8Array): void;
  /** The digest in hexadecimal. */
  finish(): string;
  free(): void;
}

/** A file that is wanted. */
export interface Wanted {
  url: string;
  /** What its bytes must hash to, in hexadecimal. */
  sha256: string | undefined;
  mode: StorageMode;
  hasher(): Hasher;
  /** Another tab downloads it: called with how far it is. */
  onWait(arrived: Arrived): void;
  /** It will not be kept, for this reason. */
  onUnkept(reason: ForedraftError): void;
}

/** A source that knows whether its bytes are the right ones. */
export interface ModelFile extends ByteSource {
  /** Reads what the engine left unread; fails where the whole is not what it should be. */
  finish(): Promise<void>;
  /** The engine refused the file: gives the error, or a better one where the bytes are at fault. */
  refused(error: ForedraftError): Promise<ForedraftError>;
  outcome(): StorageOutcome;
}

/** Errors of the engine that damaged bytes may be behind. */
const OF_FILE = new Set([
  "bad_header",
  "missing_tensor",
  "not_gguf",
  "template",
  "tensor_shape",
  "tokenizer",
  "truncated",
  "unsupported_architecture",
  "unsupported_format",
]);

/** Whether an error says something about the file itself. */
export function isOfFile(error: ForedraftError): boolean {
  return OF_FILE.has(error.code);
}

/** The error for bytes that are not those that were promised. */
export function mismatch(url: string, expected: string, found: string, why: string): ForedraftError {
  const remedy = "nothing of it was kept, so loading it again downloads it anew";
  const message = `${url}: ${why}: SHA-256 ${found}, expected ${expected}; ${remedy}`;
  return new ForedraftError("checksum_mismatch", message, { url, expected, found });
}
