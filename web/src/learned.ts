/**
 * What a user's own answers have taught the drafters, kept in the origin's IndexedDB, one record for each tokenizer. It holds
 * answers, also aborted ones, and the last 16 tokens before each, so it is as private as the conversation: it never leaves
 * the device, and it is only kept where the page asks for it (`remember`).
 */
import { ForedraftError, reasonOf } from "./errors.js";

const DATABASE = "foredraft";
const STORE = "learned";
/** Beside the records of tokenizers, whose names are numbers. */
const CUTS = "cuts";

/** By this channel engines hear that they are to forget. */
const FORGET = "foredraft:forget";

/**
 * Forgets what answers have taught, of all models of this origin. Engines that are loaded with `remember`, in any tab, forget
 * it too, after the answer that they are at; others never keep what they know, and know it until they go.
 */
export async function forget(): Promise<void> {
  const channel = new BroadcastChannel(FORGET);
  channel.postMessage(null);
  channel.close();
  await within("readwrite", (store) => store.clear());
}

/** Calls `forgotten` whenever {@link forget} is called anywhere; gives the function that ends it. */
export function onForget(forgotten: () => void): () => void {
  const channel = new BroadcastChannel(FORGET);
  channel.onmessage = forgotten;
  return () => channel.close();
}

/** What was kept for a tokenizer. */
export async function readLearned(tokenizer: string): Promise<Uint8Array | undefined> {
  const found: unknown = await within("readonly", (store) => store.get(tokenizer));
  return found instanceof Uint8Array ? found : undefined;
}

/** Keeps what `merge` makes of what is kept: in one transaction, so that of two tabs neither writes over the other. */
export async function updateLearned(
  tokenizer: string,
  merge: (kept: Uint8Array | undefined) => Uint8Array,
): Promise<void> {
  await within("readwrite", (store) => {
    const reading: IDBRequest<unknown> = store.get(tokenizer);
    reading.addEventListener("success", () => {
      store.put(merge(reading.result instanceof Uint8Array ? reading.result : undefined), tokenizer);
    });
    return reading;
  });
}

/** Forgets what was kept for a tokenizer. */
export async function deleteLearned(tokenizer: string): Promise<void> {
  await within("readwrite", (store) => store.delete(tokenizer));
}

/** What the last load has measured of the GPU here: nothing of anybody's text. A browser that keeps nothing measures again. */
export async function readCuts(): Promise<string | undefined> {
  const found: unknown = await within("readonly", (store) => store.get(CUTS)).catch(() => undefined);
  return typeof found === "string" ? found : undefined;
}

/** Keeps it for the next load. */
export async function writeCuts(cuts: string): Promise<void> {
  await within("readwrite", (store) => store.put(cuts, CUTS)).catch(() => {});
}

async function within(mode: IDBTransactionMode, work: (store: IDBObjectStore) => IDBRequest): Promise<unknown> {
  try {
    return await transact(mode, work);
  } catch (cause) {
    const reason = reasonOf(cause);
    throw new ForedraftError("io", `IndexedDB cannot be used here: ${reason}`, {}, { cause });
  }
}

async function transact(mode: IDBTransactionMode, work: (store: IDBObjectStore) => IDBRequest): Promise<unknown> {
  const opening = indexedDB.open(DATABASE, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
  const database = await settled(opening);
  try {
    const transaction = database.transaction(STORE, mode);
    const finished = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
    });
    const [result] = await Promise.all([settled(work(transaction.objectStore(STORE))), finished]);
    return result;
  } finally {
    database.close();
  }
}

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
