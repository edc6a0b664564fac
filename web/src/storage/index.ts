/**
 * The models that are kept on this device: which there are, how much room they take, and how to be rid of them. They are
 * put there by `Engine.load`, and stay until they are deleted here or the browser clears the site's data.
 */
import { ForedraftError } from "../errors.js";
import { absolute } from "../models.js";
import { CachePlace } from "./cache.js";
import { lockToDelete } from "./locks.js";
import { OpfsPlace } from "./opfs.js";
import type { Place, PlaceName } from "./place.js";
import { keyOf, storedBytes } from "./record.js";

/** A file that is kept on this device, whole or in part. */
export interface StoredModel {
  url: string;
  /** Length of the file; null where the server has not told and the file is not complete. */
  size_bytes: number | null;
  /** Bytes of it that are here. */
  stored_bytes: number;
  /** All of it is here: it loads without a network. A part is continued by the next load. */
  complete: boolean;
  /** SHA-256 of the whole file, once it is complete. */
  sha256: string | null;
  /** In the origin private file system, or in the Cache API. */
  place: PlaceName;
}

/** How much room there is. */
export interface StorageUsage {
  /** Models, whole or in part. */
  models_bytes: number;
  /** Everything that this site keeps, as the browser counts it; null where it does not say. */
  site_bytes: number | null;
  /** What the browser lets this site keep in all. */
  quota_bytes: number | null;
  /** Whether the browser keeps it when the disk runs full. */
  persisted: boolean;
}

/** Every model that is kept. */
export async function list(): Promise<StoredModel[]> {
  const models: StoredModel[] = [];
  for (const place of await places()) {
    for (const key of await place.keys()) {
      const record = await place.find(key);
      if (!record) continue;
      const { url, version, complete } = record;
      models.push({
        url,
        size_bytes: complete?.size ?? version.size ?? null,
        stored_bytes: storedBytes(record),
        complete: complete !== undefined,
        sha256: complete?.sha256 ?? null,
        place: place.name,
      });
    }
  }
  return models.sort((a, b) => (a.url < b.url ? -1 : 1));
}

/** How much room models take, and how much there is. */
export async function usage(): Promise<StorageUsage> {
  const models_bytes = (await list()).reduce((sum, model) => sum + model.stored_bytes, 0);
  const manager = globalThis.navigator?.storage;
  const estimate: StorageEstimate = (await manager?.estimate?.().catch(() => undefined)) ?? {};
  const persisted = (await manager?.persisted?.().catch(() => false)) ?? false;
  return { models_bytes, site_bytes: estimate.usage ?? null, quota_bytes: estimate.quota ?? null, persisted };
}

/**
 * Deletes a model, be it whole or a part; false where there is none. Fails with `storage_busy` while a tab loads it: a model
 * that has been loaded no longer needs its file.
 */
async function deleteModel(url: string | URL): Promise<boolean> {
  const address = absolute(url, "url");
  return remove(await keyOf(address), address);
}
export { deleteModel as delete };

/** Deletes every model; fails with `storage_busy` where a tab loads one, with the others gone. */
export async function clear(): Promise<void> {
  let busy: unknown;
  for (const place of await places()) {
    for (const key of await place.keys()) {
      const url = (await place.find(key))?.url ?? key;
      await remove(key, url).catch((thrown: unknown) => (busy = thrown));
    }
  }
  if (busy) throw busy;
}

/**
 * Asks the browser not to delete this site's data when the disk runs full; from a page, not from a worker. Chromium and
 * Safari decide by themselves, Firefox asks the user: so it is never done unasked.
 */
export async function persist(): Promise<boolean> {
  return (await globalThis.navigator?.storage?.persist?.()) ?? false;
}

async function remove(key: string, url: string): Promise<boolean> {
  const all = await places();
  if (all.length === 0) return false;
  const release = await lockToDelete(key);
  if (!release) {
    const message = `${url} is being loaded, here or in another tab; delete it when that is done`;
    throw new ForedraftError("storage_busy", message, { url });
  }
  try {
    let found = false;
    for (const place of all) {
      if (!(await place.keys()).includes(key)) continue;
      await place.remove(key);
      found = true;
    }
    return found;
  } finally {
    release();
  }
}

/** Where files may be; none where the browser gives this site no storage, or there is no browser. */
async function places(): Promise<Place[]> {
  if (!globalThis.isSecureContext || !globalThis.navigator?.locks) return [];
  const opened = await Promise.allSettled<Place>([OpfsPlace.open(false), CachePlace.open()]);
  return opened.flatMap((place) => (place.status === "fulfilled" ? [place.value] : []));
}
