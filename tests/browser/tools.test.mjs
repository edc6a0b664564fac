// Tool calls in a text that comes in pieces: web/src/tools.ts by itself.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";
import { before, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const { build } = createRequire(path.join(root, "web/package.json"))("esbuild");

const A = '{"name": "a", "arguments": {"x": 1}}';
const CASES = [
  // [text, what is text, calls]
  ["plain text", "plain text", []],
  ["a < b, a <tool, <tool_cal", "a < b, a <tool, <tool_cal", []],
  [`<tool_call>${A}</tool_call>`, "", ["a"]],
  [`I ask. <tool_call>\n${A}\n</tool_call>\n<tool_call>${A}</tool_call>`, "I ask. ", ["a", "a"]],
  [`<tool_call>${A}`, "", ["a"]],
  [`<tool_call>${A}</tool_call>\nI look it up.`, "\nI look it up.", ["a"]],
  ['<tool_call>{"name": "a", "arguments": {"x": "</tool_call>"}}</tool_call>', "", ["a"]],
  ["<tool_call>{broken</tool_call> more", "<tool_call>{broken</tool_call> more", []],
  [`<tool_call>${A}</tool_call><tool_call>{"name": "unknown"}</tool_call>`, null, []],
  [` \n${A}`, "", ["a"]],
  [`[${A}, {"name": "b", "parameters": "{}"}]`, "", ["a", "b"]],
  ['{"type": "function", "function": {"name": "b"}}', "", ["b"]],
  ['{"name": "a", "arguments": [1]}', null, []],
  ['{"answer": 42}', null, []],
  [`${A} and more`, null, []],
  [`Like this: ${A}`, null, []],
  ["  ", "  ", []],
  ["", "", []],
];

let ToolCallReader;
let callSchema;

before(async () => {
  const entryPoints = [path.join(root, "web/src/tools.ts")];
  const { outputFiles } = await build({ entryPoints, bundle: true, format: "esm", write: false });
  ({ ToolCallReader, callSchema } = await import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString("base64")}`));
});

for (const size of [1, 3, 7, 1000]) {
  test(`calls are found in pieces of ${size}`, () => {
    for (const [whole, expected, names] of CASES) {
      const reader = new ToolCallReader(new Set(["a", "b"]));
      let text = "";
      for (let at = 0; at < whole.length; at += size) text += reader.push(whole.slice(at, at + size));
      const { text: rest, calls } = reader.finish();
      assert.equal(text + rest, expected ?? whole, whole);
      assert.deepEqual(
        calls.map((call) => call.function.name),
        names,
        whole,
      );
      for (const { function: called } of calls) assert.equal(typeof JSON.parse(called.arguments), "object");
      assert.equal(new Set(calls.map(({ id }) => id)).size, calls.length);
    }
  });
}

test("arguments of a forced call are an object, and refer to their own parts", () => {
  const argumentsBy = (parameters) =>
    callSchema([{ type: "function", function: { name: "a", parameters } }], new Set(["a"])).properties.arguments;
  assert.deepEqual(argumentsBy(undefined), { type: "object" });
  assert.deepEqual(argumentsBy({}), { type: "object" });
  assert.deepEqual(argumentsBy({ properties: {} }), { properties: {}, type: "object" });
  const parameters = {
    $ref: "#",
    properties: { const: { $ref: "#/$defs/a" }, b: { enum: [{ $ref: "#/b" }], default: { $ref: "#" } } },
    $defs: { a: { items: { $ref: "#node" } }, enum: { anyOf: [{ $ref: "#/$defs/a" }] } },
  };
  assert.deepEqual(argumentsBy(parameters), {
    $ref: "#/properties/arguments",
    properties: { const: { $ref: "#/properties/arguments/$defs/a" }, b: { enum: [{ $ref: "#/b" }], default: { $ref: "#" } } },
    $defs: { a: { items: { $ref: "#node" } }, enum: { anyOf: [{ $ref: "#/properties/arguments/$defs/a" }] } },
  });
});
