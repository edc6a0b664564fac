/** The wasm of JSON schemas: fetched when a request first needs it. */
import init, { Vocabulary } from "../generated/foredraft_grammar.js";
import type { Engine } from "../generated/foredraft.js";
import { ForedraftError, reasonOf } from "./errors.js";

let started: Promise<unknown> | undefined;

/** Matchers for the tokens of an engine; `wasm` is where the wasm is, if not beside this script. */
export async function vocabularyOf(engine: Engine, wasm: string | undefined): Promise<Vocabulary> {
  // The expression as bundlers know it: they copy the file by `new URL(…, import.meta.url)`.
  started ??= init({ module_or_path: wasm ?? new URL("./foredraft_grammar_bg.wasm", import.meta.url) });
  try {
    await started;
  } catch (cause) {
    started = undefined;
    const reason = reasonOf(cause);
    throw new ForedraftError("worker_failed", `the wasm of JSON schemas could not be loaded: ${reason}`, {}, { cause });
  }
  return new Vocabulary(engine.tokenBytes(), engine.tokenLengths(), engine.endTokens());
}
