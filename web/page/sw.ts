/**
 * The service worker: keeps the page's own files, so that it starts without a network. Models are none of its business.
 * The build names the files and the version, a hash of their contents: another content is another cache.
 */
declare const PAGE_FILES: readonly string[];
declare const PAGE_VERSION: string;

interface Extendable extends Event {
  waitUntil(work: Promise<unknown>): void;
}
interface Fetching extends Extendable {
  readonly request: Request;
  respondWith(answer: Promise<Response>): void;
}
/** The part of a service worker's global scope that is used; the `webworker` types would clash with the page's. */
interface Scope {
  readonly registration: { readonly scope: string };
  readonly clients: { claim(): Promise<void> };
  skipWaiting(): Promise<void>;
  addEventListener(type: "install" | "activate", listener: (event: Extendable) => void): void;
  addEventListener(type: "fetch", listener: (event: Fetching) => void): void;
  addEventListener(type: "message", listener: (event: MessageEvent<unknown>) => void): void;
}

const scope = globalThis as unknown as Scope;
/** Caches are of the origin, where other pages may live, and this one too under another path. */
const prefix = `foredraft-page ${new URL(scope.registration.scope).pathname} `;
const current = prefix + PAGE_VERSION;
const files = new Set(PAGE_FILES.map((file) => new URL(file, scope.registration.scope).href));

async function keep(cache: Cache, url: string): Promise<void> {
  const answer = await fetch(url, { cache: "no-cache" });
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  // A navigation must not be answered with what came by a redirect.
  const { headers, status, statusText } = answer;
  await cache.put(url, answer.redirected ? new Response(answer.body, { headers, status, statusText }) : answer);
}

scope.addEventListener("install", (event) => {
  event.waitUntil(caches.open(current).then((cache) => Promise.all([...files].map((url) => keep(cache, url)))));
});

scope.addEventListener("activate", (event) => {
  const old = async () => {
    const names = (await caches.keys()).filter((name) => name.startsWith(prefix) && name !== current);
    await Promise.all(names.map((name) => caches.delete(name)));
    await scope.clients.claim();
  };
  event.waitUntil(old());
});

scope.addEventListener("message", ({ data }) => {
  if (data === "activate") void scope.skipWaiting();
});

scope.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  url.search = url.hash = "";
  // `index.html` is kept as the folder it stands for.
  const file = url.href.replace(/\/index\.html$/, "/");
  if (event.request.method !== "GET" || !files.has(file)) return;
  event.respondWith(caches.open(current).then(async (cache) => (await cache.match(file)) ?? fetch(event.request)));
});

export {};
