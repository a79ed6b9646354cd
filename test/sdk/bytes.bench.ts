/**
 * What the byte-level helpers cost: `node test/sdk/bytes.bench.ts`. Prints medians; asserts nothing. The body is shaped
 * as a coding agent's: 520 KB, tool calls and code text, with a quote about every 20 bytes.
 */
import { parseIndex, skipValue, topLevel } from "../../plugin-sdk/src/json-index.ts";
import { type JsonEdit, spliceJson } from "../../plugin-sdk/src/json-splice.ts";
import { encodeSse, type SseEvent, SseSplitter } from "../../plugin-sdk/src/sse.ts";

const BODY_BYTES = 520_000;
const EVENTS = 20_000;

function agentBody(): Buffer {
  const code = '  const found = look("name", { depth: 1 });\n\tif (found) return "é"; // why this is right\n';
  const messages: unknown[] = [];
  for (let at = 0, bytes = 0; bytes < BODY_BYTES; at++) {
    const message = {
      role: at % 2 === 0 ? "user" : "assistant",
      content: [
        { type: "text", text: code.repeat(5 + (at % 40)) },
        {
          type: "tool_use",
          id: `toolu_${at}`,
          name: "read",
          input: { path: `/src/file-${at}.ts`, limit: at },
        },
      ],
    };
    messages.push(message);
    bytes += Buffer.byteLength(JSON.stringify(message)) + 1;
  }
  return Buffer.from(JSON.stringify({ model: "mock", max_tokens: 1024, messages, stream: true }));
}

function medianUs(run: () => unknown, rounds = 15, runs = 10): number {
  for (let warm = 0; warm < 40; warm++) run();
  const times = Array.from({ length: rounds }, () => {
    const from = process.hrtime.bigint();
    for (let at = 0; at < runs; at++) run();
    return Number(process.hrtime.bigint() - from) / runs / 1000;
  });
  return times.sort((a, b) => a - b)[rounds >> 1]!;
}

function report(name: string, us: number, per = "µs"): void {
  console.log(`${name.padEnd(48)} ${us.toFixed(1).padStart(8)} ${per}`);
}

const body = agentBody();
const root = parseIndex(body);
const edits: JsonEdit[] = [{ kind: "patch", op: "replace", pointer: "/model", value: "other" }];
for (const message of root.get("messages")!.items().slice(-3)) {
  edits.push({ kind: "text", node: message.find("/content/0/text")!, text: "shorter" });
}
const wanted = new Set(["model", "stream"]);

console.log(`body of ${body.length} bytes`);
report(
  "skipValue, whole body",
  medianUs(() => skipValue(body, 0)),
);
report(
  "topLevel, model and stream",
  medianUs(() => topLevel(body, wanted)),
);
report(
  "parseIndex",
  medianUs(() => parseIndex(body)),
);
report(
  "spliceJson, 3 texts and a patch, index at hand",
  medianUs(() => spliceJson(body, root, edits)),
);
report(
  "JSON.parse",
  medianUs(() => JSON.parse(body.toString())),
);
report(
  "JSON.parse + JSON.stringify",
  medianUs(() => Buffer.from(JSON.stringify(JSON.parse(body.toString())))),
);

const data = JSON.stringify({ index: 0, text: "a hundred bytes, blank line and type included, OK" });
for (const [name, ending] of Object.entries({ LF: "\n", CRLF: "\r\n", CR: "\r" })) {
  const event = encodeSse({ event: "text_delta", data }).toString().replaceAll("\n", ending);
  const stream = Buffer.from(event.repeat(EVENTS));
  const chunks: Buffer[] = [];
  for (let at = 0; at < stream.length; at += 4096) chunks.push(stream.subarray(at, at + 4096));
  const readers: Record<string, (event: SseEvent) => unknown> = {
    split: () => {},
    json: (event) => event.json(),
  };
  for (const [reader, out] of Object.entries(readers)) {
    const run = () => {
      const splitter = new SseSplitter();
      for (const chunk of chunks) splitter.push(chunk, out);
    };
    const us = medianUs(run, 9, 1);
    report(`${name} events of ${event.length} bytes, ${reader}`, (us * 1000) / EVENTS, "ns an event");
  }
}
