/** Files on servers: read by ranges, a few in flight, tried again where a connection drops; or as one stream. */
import { ForedraftError, reasonOf } from "./errors.js";
import { CHUNK_BYTES, ChunkedSource, StreamSource, type ByteSource, type Pull } from "./sources.js";

/** Requests in a row that bring nothing before a download counts as failed. */
const ATTEMPTS = 4;
const RETRY_DELAY_MS = 400;
/** A connection that brings nothing for so long counts as dropped: a computer that slept may never hear of its end. */
const STALL_MS = 60_000;

/** What tells one version of a file from another, as far as the server lets this origin see it. */
export interface Version {
  size?: number;
  etag?: string;
  last_modified?: string;
}

/** A source that knows which version of the file it reads, and from which byte on. */
export type UrlSource = ByteSource & { readonly version: Version; readonly start: number };

/** Options of {@link openUrl}. */
export interface UrlOptions {
  /** Where reading will begin, a multiple of {@link CHUNK_BYTES}; a server without ranges begins at 0 all the same. */
  start?: number;
  /** `"no-store"` where the bytes are kept elsewhere. */
  cache?: RequestCache;
  /** Chunks to ask for ahead of the one being read. */
  readAhead?: number;
  /** Milliseconds without an answer, or a byte of it, after which a connection counts as dropped. */
  stallMs?: number;
}

/** A file that is being read. */
interface Remote {
  readonly stallMs: number;
  readonly url: string;
  readonly cache: RequestCache;
  readonly abort: AbortController;
  /** From the first answer on. */
  version: Version;
}

/** A URL, read by ranges, or as one stream where the server knows no ranges. */
export async function openUrl(url: string, options: UrlOptions = {}): Promise<UrlSource> {
  const { start = 0, cache = "default", readAhead, stallMs = STALL_MS } = options;
  const remote: Remote = { url, cache, stallMs, abort: new AbortController(), version: {} };
  const response = await request(remote, start, start + CHUNK_BYTES, true);
  remote.version = versionOf(response);
  if (response.status === 200) return openResponse(remote, response);
  const size = rangeTotal(response) ?? (await lengthByHead(remote));
  if (size !== undefined) remote.version.size = size;
  const first = body(remote, response, start, Math.min(start + CHUNK_BYTES, size ?? Infinity));
  first.catch(() => {}); // the first read gets the error
  const chunk = async (start: number, end: number) => {
    try {
      return await body(remote, undefined, start, end);
    } catch (thrown) {
      // Where the size is hidden, a range that cannot be satisfied is how the end shows.
      if (size === undefined && statusOf(thrown) === 416) return new Uint8Array(0);
      throw thrown;
    }
  };
  const chunks = { first: { index: start / CHUNK_BYTES, bytes: first }, ...(readAhead !== undefined && { readAhead }) };
  const source = new ChunkedSource(url, size, chunk, remote.abort, chunks);
  return Object.assign(source, { version: remote.version, start });
}

/** The HTTP status behind an error, if there is one. */
export function statusOf(thrown: unknown): unknown {
  return thrown instanceof ForedraftError ? thrown.details["status"] : undefined;
}

/** Names what both versions show and what differs in it; undefined where they may be the same. */
export function difference(expected: Version, found: Version): string | undefined {
  const says = (version: Version) => ({
    size: version.size === undefined ? undefined : `${version.size} bytes`,
    // A tag that is weak here and strong there is still of one version: compression on the way weakens it.
    etag: version.etag?.replace(/^W\//, ""),
    last_modified: version.last_modified,
  });
  const [before, now] = [says(expected), says(found)];
  for (const name of ["size", "etag", "last_modified"] as const) {
    const [old, current] = [before[name], now[name]];
    if (old !== undefined && current !== undefined && old !== current) return `it was ${old} and is now ${current}`;
    // Mirrors of one file agree on its tag, not always on its date.
    if (name === "etag" && old !== undefined && old === current) return undefined;
  }
  return undefined;
}

function versionOf(response: Response): Version {
  const version: Version = {};
  const [etag, date] = [response.headers.get("ETag"), response.headers.get("Last-Modified")];
  if (etag !== null) version.etag = etag;
  if (date !== null) version.last_modified = date;
  const size = rangeTotal(response);
  if (size !== undefined) version.size = size;
  return version;
}

/** The whole file as one response: its body is the stream. */
function openResponse(remote: Remote, response: Response): UrlSource {
  const length = response.headers.get("Content-Length");
  // With a content encoding the length counts encoded bytes.
  const size = length !== null && !response.headers.get("Content-Encoding") ? Number(length) : undefined;
  if (size !== undefined) remote.version.size = size;
  const reader = response.body?.getReader();
  const pull: Pull = async () => {
    try {
      return (await within(remote.stallMs, reader?.read()))?.value;
    } catch (cause) {
      throw failure(remote.url, cause);
    }
  };
  const source = new StreamSource(remote.url, size, pull, () => remote.abort.abort());
  return Object.assign(source, { version: remote.version, start: 0 });
}

/**
 * Asks for bytes `start..end`; where the `whole` file will do, a server without ranges may send that. Statuses that will not
 * get better are errors at once, others are tried again.
 */
async function request(remote: Remote, start: number, end: number, whole = start === 0): Promise<Response> {
  const { url } = remote;
  const { signal } = remote.abort;
  for (let attempt = 1; ; attempt++) {
    let problem: ForedraftError;
    try {
      // A range is of the file itself only without a content encoding; fetch sends none for ranges.
      const response = await answerOf(remote, { headers: { Range: `bytes=${start}-${end - 1}` } });
      if (response.status === 206 || (response.status === 200 && whole)) return response;
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

/** The head of an answer; a server that sends none in time counts as gone. */
async function answerOf({ url, cache, stallMs, abort }: Remote, asked: RequestInit): Promise<Response> {
  const late = new AbortController();
  const signal = AbortSignal.any([abort.signal, late.signal]);
  const timer = setTimeout(() => late.abort(nothingCame(stallMs)), stallMs);
  try {
    return await fetch(url, { ...asked, cache, signal });
  } finally {
    clearTimeout(timer);
  }
}

/** Reads bytes `start..end` whole; where the connection drops, asks for the rest. */
async function body(remote: Remote, response: Response | undefined, start: number, end: number): Promise<Uint8Array> {
  const { url, abort, version } = remote;
  const buffer = new Uint8Array(end - start);
  let filled = 0;
  let failures = 0;
  for (;;) {
    const before = filled;
    const answer = response ?? (await request(remote, start + filled, end));
    response = undefined;
    const reader = answer.body?.getReader();
    let problem: unknown;
    try {
      checkRange(answer, remote, start + filled);
      while (filled < buffer.length) {
        const piece = (await within(remote.stallMs, reader?.read()))?.value;
        if (!piece) break;
        const fits = piece.subarray(0, buffer.length - filled);
        buffer.set(fits, filled);
        filled += fits.length;
      }
    } catch (thrown) {
      if (abort.signal.aborted) throw ForedraftError.aborted(abort.signal);
      if (thrown instanceof ForedraftError) throw thrown;
      problem = thrown;
    } finally {
      reader?.cancel().catch(() => {}); // a server may send more than it was asked for
    }
    if (filled === buffer.length) return buffer;
    // Without a known size a short answer is the end of the file.
    if (!problem && version.size === undefined) return buffer.subarray(0, filled);
    // A connection that drops now and then still brings the file; only one that brings nothing counts up.
    failures = filled > before ? 1 : failures + 1;
    if (failures === ATTEMPTS) throw failure(url, problem ?? new Error(`the connection closed after ${start + filled} bytes`));
    await pause(failures);
  }
}

/** What `promise` gives, or an error where it gives nothing in time. */
async function within<T>(limit_ms: number, promise: Promise<T> | undefined): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(nothingCame(limit_ms)), limit_ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function nothingCame(limit_ms: number): Error {
  return new Error(`nothing came for ${limit_ms / 1000} s`);
}

/** Waits after the `failures`-th failure in a row, longer each time. */
function pause(failures: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, RETRY_DELAY_MS * 2 ** (failures - 1)));
}

/** Refuses an answer that says it holds other bytes than those from `start`, or that the file is another one now. */
function checkRange(answer: Response, { url, version }: Remote, start: number): void {
  const changed = difference(version, versionOf(answer));
  if (changed) {
    const message = `${url}: the file changed while it was read: ${changed}; load it again`;
    throw new ForedraftError("download_failed", message, { url, expected: version, found: versionOf(answer) });
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

async function lengthByHead(remote: Remote): Promise<number | undefined> {
  try {
    const response = await answerOf(remote, { method: "HEAD" });
    const length = response.headers.get("Content-Length");
    return response.ok && length !== null && !response.headers.get("Content-Encoding") ? Number(length) : undefined;
  } catch {
    return undefined; // the length is a help, not a need
  }
}

function failure(url: string, cause: unknown): ForedraftError {
  const reason = reasonOf(cause);
  const hint = "check the address, the network, and that the server allows this origin (CORS)";
  return new ForedraftError("download_failed", `${url}: ${reason}; ${hint}`, { url }, { cause });
}
