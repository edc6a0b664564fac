/** From a URL to a source: what is stored is read, what is missing is downloaded, and one tab at a time does that. */
import { ForedraftError, reasonOf } from "../errors.js";
import { openUrl, statusOf, type UrlSource, type Version } from "../http.js";
import type { DownloadPlan } from "../probe.js";
import { CHUNK_BYTES, type ByteSource } from "../sources.js";
import { CachePlace } from "./cache.js";
import { Download, notKept, quotaExceeded, type Keeping } from "./download.js";
import { lock, tryLock } from "./locks.js";
import type { ModelFile, Wanted } from "./model.js";
import { OpfsPlace } from "./opfs.js";
import type { KeptFile, Place } from "./place.js";
import { changed, keyOf, sha256, storedBytes, type FileRecord } from "./record.js";
import { StoredFile } from "./stored.js";

/** Left free beside a model: the browser keeps more than its bytes, and others write too. */
const SPARE_BYTES = 16 << 20;

/** Opens a file that was named by URL. */
export async function openModel(wanted: Wanted): Promise<ModelFile> {
  if (wanted.mode === "off") return new Download(wanted, await openUrl(wanted.url), undefined);
  const place = await findPlace(wanted.url);
  if (typeof place === "string") {
    const message = `${wanted.url} cannot be kept on this device: ${place}`;
    return unkept(wanted, new ForedraftError("storage_unavailable", message, { url: wanted.url }));
  }
  try {
    return await keptModel(wanted, place, await keyOf(wanted.url));
  } catch (thrown) {
    if (thrown instanceof ForedraftError) throw thrown;
    return unkept(wanted, notKept(wanted.url, place, thrown));
  }
}

/** The file from `place`, or on its way there; errors of another type than the package's are those of storage. */
async function keptModel(wanted: Wanted, place: Place, key: string): Promise<ModelFile> {
  const isWanted = (record: FileRecord) => record.complete !== undefined && !isOther(record, wanted.sha256);
  const arrived = async () => {
    const record = await place.find(key).catch(() => undefined);
    return { loaded: record ? storedBytes(record) : 0, total: record?.version.size ?? 0 };
  };
  for (;;) {
    const doneReading = await lock(key, "shared", arrived, wanted.onWait);
    const stored = await guarded(doneReading, async () => {
      const record = await place.find(key);
      if (!record || !isWanted(record)) return undefined;
      return new StoredFile(place, key, await place.openComplete(key, record), doneReading);
    });
    if (stored) return stored;
    doneReading();
    const doneWriting = await lock(key, "exclusive", arrived, wanted.onWait);
    const downloaded = await guarded(doneWriting, async () => {
      const record = await place.find(key);
      // Another tab was faster.
      if (record && isWanted(record)) return undefined;
      // Complete and not what is wanted: another version of the file.
      if (record?.complete) await place.remove(key);
      return download(wanted, place, key, doneWriting);
    });
    if (downloaded) return downloaded;
    doneWriting();
  }
}

/** What is here of a file and a source of its first bytes: to look at it without keeping anything. */
export async function peekModel(
  url: string,
  sha256: string | undefined,
): Promise<{ source: ByteSource; download: DownloadPlan }> {
  const place = await findPlace(url);
  let stored_bytes = 0;
  if (typeof place !== "string") {
    const key = await keyOf(url);
    const found = await place.find(key).catch(() => undefined);
    const record = found && isOther(found, sha256) ? undefined : found;
    if (record) stored_bytes = storedBytes(record);
    const release = record?.complete ? await tryLock(key, "shared") : undefined;
    if (record?.complete && release) {
      const file = await guarded(release, () => place.openComplete(key, record));
      const source = new StoredFile(place, key, file, release, { readAhead: 0 });
      return { source, download: { url, size_bytes: stored_bytes, stored_bytes, fits_storage: true } };
    }
  }
  const source = await openUrl(url, { readAhead: 0 });
  const size_bytes = source.size ?? null;
  const missing = size_bytes === null ? 0 : size_bytes - stored_bytes;
  const fits_storage = typeof place === "string" ? false : size_bytes === null ? null : !(await tooLarge(url, missing));
  return { source, download: { url, size_bytes, stored_bytes, fits_storage } };
}

/** Whether a file is complete and not the one with this digest: a load downloads it anew. */
function isOther({ complete }: FileRecord, sha256: string | undefined): boolean {
  return complete !== undefined && sha256 !== undefined && complete.sha256 !== sha256;
}

/** Runs `work`; where it fails the lock is let go of. */
async function guarded<T>(release: () => void, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    release();
    throw thrown;
  }
}

/** Where the file at this address can be kept from here, or why nowhere. */
async function findPlace(url: string): Promise<Place | string> {
  // The address of a blob is another one each time, and data: is its own copy.
  if (!/^https?:/.test(url)) return "it has no address by http or https, by which a later visit would find it";
  if (!globalThis.isSecureContext) return "the page did not come by https";
  if (typeof navigator === "undefined" || !navigator.locks) return "this browser has no Web Locks";
  try {
    return await OpfsPlace.open(true);
  } catch (first) {
    try {
      return await CachePlace.open();
    } catch {
      return `this browser gives this site no storage (${reasonOf(first)})`;
    }
  }
}

async function unkept(wanted: Wanted, reason: ForedraftError): Promise<ModelFile> {
  if (wanted.mode === "require") throw reason;
  return new Download(wanted, await openUrl(wanted.url), undefined, reason);
}

/** Begins or continues a download with the lock held. */
async function download(wanted: Wanted, place: Place, key: string, release: () => void): Promise<ModelFile> {
  const file = await place.openToWrite(key, wanted.url);
  let origin: UrlSource | undefined;
  try {
    await dropTornChunks(file);
    origin = await openRest(wanted, file);
    const { digests, version } = file.record;
    const missing = (origin?.size ?? version.size ?? 0) - digests.length * CHUNK_BYTES;
    const reason = origin && (await tooLarge(wanted.url, missing));
    if (reason && wanted.mode === "require") throw reason;
    const keeping: Keeping = { place, key, file, release };
    if (!reason || digests.length > 0) return new Download(wanted, origin, keeping, reason);
    // Nothing of it is here and nothing will be: nobody has to wait for it.
    file.close();
    await place.remove(key);
    release();
    return new Download(wanted, origin, undefined, reason);
  } catch (thrown) {
    origin?.close();
    file.close();
    // What went wrong is worth more than that this goes wrong too.
    if (file.record.digests.length === 0) await place.remove(key).catch(() => {});
    throw thrown;
  }
}

/** A device that lost power may have written a record and not its bytes. */
async function dropTornChunks(file: KeptFile): Promise<void> {
  const { record } = file;
  while (record.digests.length > 0) {
    const last = record.digests.length - 1;
    if ((await sha256(await file.read(last))) === record.digests[last]) return;
    await file.dropLast();
  }
}

/** The network's part of the file; none where all is stored. Another version than the one that was begun starts afresh. */
async function openRest({ url, sha256 }: Wanted, file: KeptFile): Promise<UrlSource | undefined> {
  const { digests, version } = file.record;
  const start = digests.length * CHUNK_BYTES;
  if (start > 0 && version.size !== undefined && start >= version.size) return undefined;
  if (start > 0) {
    try {
      const source = await openUrl(url, { start, cache: "no-store" });
      // A file of two versions would be no model: either the server tells them apart, or the digest of the whole does.
      const certain = sha256 !== undefined || comparable(version, source.version);
      if (source.start === start && certain && !changed(file.record, source.version)) return source;
      if (source.start === 0) return await begin(source, file);
      source.close();
    } catch (thrown) {
      if (statusOf(thrown) !== 416) throw thrown; // shorter now than what is here
    }
  }
  return begin(await openUrl(url, { cache: "no-store" }), file);
}

/** Whether both versions show what changes with the file's bytes, beside its size. */
function comparable(a: Version, b: Version): boolean {
  const both = (name: "etag" | "last_modified") => a[name] !== undefined && b[name] !== undefined;
  return both("etag") || both("last_modified");
}

async function begin(source: UrlSource, file: KeptFile): Promise<UrlSource> {
  try {
    await file.restart(source.version);
    return source;
  } catch (thrown) {
    source.close();
    throw thrown;
  }
}

/** The error for a file with more bytes to come than there is room for. Where the browser does not say, writing will show. */
async function tooLarge(url: string, bytes: number): Promise<ForedraftError | undefined> {
  const { quota, usage = 0 }: StorageEstimate = await navigator.storage.estimate().catch(() => ({}));
  const fits = quota === undefined || bytes + SPARE_BYTES <= quota - usage;
  return fits ? undefined : quotaExceeded(url, bytes, quota, usage);
}
