/** Files in the Cache API, chunk by chunk, where no file can be written in place: in shared workers, for instance. */
import type { Version } from "../http.js";
import type { KeptFile, Place } from "./place.js";
import { headLine, lastLine, parseRecord, type FileRecord } from "./record.js";

const CACHE = "foredraft-models";
/** Never asked of the network: a cache wants addresses as names. */
const BASE = "https://foredraft.invalid/models/";

const nameOf = (key: string, part: string | number) => `${BASE}${key}/${part}`;

/** The cache of this origin. */
export class CachePlace implements Place {
  readonly name = "cache";

  private constructor(private readonly cache: Cache) {}

  /** Opens it, or makes it. */
  static async open(): Promise<CachePlace> {
    return new CachePlace(await caches.open(CACHE));
  }

  async find(key: string): Promise<FileRecord | undefined> {
    const text = await (await this.cache.match(nameOf(key, "record")))?.text();
    return text === undefined ? undefined : parseRecord(text);
  }

  async openComplete(key: string, record: FileRecord): Promise<KeptFile> {
    return new CachedFile(this.cache, key, record);
  }

  async openToWrite(key: string, url: string): Promise<KeptFile> {
    return new CachedFile(this.cache, key, (await this.find(key)) ?? { url, version: {}, digests: [] });
  }

  async keys(): Promise<string[]> {
    const names = (await this.cache.keys()).map((request) => request.url.slice(BASE.length).split("/"));
    return [...new Set(names.map(([key]) => key!))];
  }

  async remove(key: string): Promise<void> {
    // The record last: what is left of an interrupted removal can be found, and removed, again.
    const names = (await this.cache.keys()).map((request) => request.url).filter((url) => url.startsWith(nameOf(key, "")));
    for (const name of names.sort()) await this.cache.delete(name);
  }
}

class CachedFile implements KeptFile {
  constructor(
    private readonly cache: Cache,
    private readonly key: string,
    readonly record: FileRecord,
  ) {}

  async read(index: number): Promise<Uint8Array<ArrayBuffer>> {
    const response = await this.cache.match(nameOf(this.key, index));
    return response ? new Uint8Array(await response.arrayBuffer()) : new Uint8Array(0);
  }

  async append(bytes: Uint8Array<ArrayBuffer>, digest: string): Promise<void> {
    await this.cache.put(nameOf(this.key, this.record.digests.length), new Response(bytes));
    this.record.digests.push(digest);
    await this.writeRecord();
  }

  async restart(version: Version): Promise<void> {
    const chunks = this.record.digests.length;
    Object.assign(this.record, { version, digests: [] });
    delete this.record.complete;
    await this.writeRecord();
    for (let index = 0; index < chunks; index++) await this.cache.delete(nameOf(this.key, index));
  }

  async dropLast(): Promise<void> {
    this.record.digests.pop();
    await this.writeRecord();
  }

  async seal(sha256: string, size: number): Promise<void> {
    this.record.complete = { sha256, size };
    await this.writeRecord();
  }

  close(): void {}

  private async writeRecord(): Promise<void> {
    const { url, version, digests, complete } = this.record;
    const lines = [headLine(url, version), ...digests.map((digest) => `${digest}\n`)];
    if (complete) lines.push(lastLine(complete.sha256, complete.size));
    await this.cache.put(nameOf(this.key, "record"), new Response(lines.join("")));
  }
}
