/** The wasm of JSON schemas: fetched when a request first needs it. */
import init, { Vocabulary } from "../generated/foredraft_grammar.js";
import type { Engine } from "../generated/foredraft.js";
import { ForedraftError, reasonOf } from "./errors.js";

/** Its memory; read anew each time, as it grows. */
let memory: WebAssembly.Memory | undefined;

/** Compiles the wasm, once, and after a failure anew; `wasm` is where it is, if not beside this script. */
export async function startGrammar(wasm: string | undefined): Promise<void> {
  try {
    // The expression as bundlers know it: they copy the file by `new URL(…, import.meta.url)`.
    ({ memory } = await init({ module_or_path: wasm ?? new URL("./foredraft_grammar_bg.wasm", import.meta.url) }));
  } catch (cause) {
    const reason = reasonOf(cause);
    // The engine is as good as before: `worker_failed` would say that it has to be loaded again.
    throw new ForedraftError("download_failed", `the wasm of JSON schemas could not be loaded: ${reason}`, {}, { cause });
  }
}

/** Matchers for the tokens of an engine; the wasm has been started. */
export function vocabularyOf(engine: Engine): Vocabulary {
  try {
    return new Vocabulary(engine.tokenBytes(), engine.tokenLengths(), engine.endTokens());
  } catch (thrown) {
    throw new ForedraftError("schema", `this model's vocabulary: ${reasonOf(thrown)}`);
  }
}

/** Bytes of the memory of the wasm: none until a request has needed it. */
export function grammarBytes(): number {
  return memory?.buffer.byteLength ?? 0;
}

/** Whether a matcher broke down, and was not just refused a schema; `src/web/grammar.rs` has the words. */
export function brokeDown({ code, details }: ForedraftError): boolean {
  return code === "schema" && String(details["reason"]).startsWith("its matcher broke down");
}
