/** The prompts of `foredraft bench`, which lie beside the page. */
import { ForedraftError, type BenchSuite } from "../src/index.js";

let suite: Promise<BenchSuite> | undefined;

/** Reads them once; after a failure the next call tries again. */
export function prompts(): Promise<BenchSuite> {
  suite ??= read().catch((thrown: unknown) => {
    suite = undefined;
    throw thrown;
  });
  return suite;
}

async function read(): Promise<BenchSuite> {
  const answer = await fetch(new URL("prompts.json", document.baseURI));
  if (!answer.ok) throw new ForedraftError("download_failed", `${answer.url}: the server answered ${answer.status}`);
  return (await answer.json()) as BenchSuite; // a file of the page's own
}
