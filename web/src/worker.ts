/** Entry of the dedicated worker that {@link Engine.load} starts. */
import { ForedraftError } from "./errors.js";
import { EngineHost } from "./host.js";
import type { Answer, Ask } from "./protocol.js";

/** The part of a worker's global scope that is used; the `webworker` types would clash with the page's. */
interface Scope {
  onmessage: ((message: MessageEvent<Ask>) => void) | null;
  addEventListener(type: "unhandledrejection", listener: (event: PromiseRejectionEvent) => void): void;
  postMessage(answer: Answer): void;
}

const scope = globalThis as unknown as Scope;
const host = new EngineHost((answer) => scope.postMessage(answer));
scope.onmessage = (message) => host.receive(message.data);
// A trap inside the wasm ends up here: nothing that waits for it would ever be answered.
scope.addEventListener("unhandledrejection", (event) => {
  scope.postMessage({ id: 0, kind: "fatal", error: ForedraftError.from(event.reason, "worker_failed").toWire() });
});
