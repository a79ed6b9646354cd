/**
 * Request bodies of an exact size: an agent's conversation (short text for a small one, tool calls and their results
 * for a large one) that is the same in every request but for the last message, which carries a nonce. So each
 * request is one new turn of one known conversation: no cache may answer it, and work that is remembered per segment
 * has one new segment to do.
 */

import { type BenchDialect, modelFor, type ReplySpec } from "./replies.ts";
import { anthropicRequest, openaiChatRequest, type RequestOptions, type SessionTurn } from "./session.ts";

export interface BenchBody {
  bytes: Buffer;
  /** Where the nonce's digits are in `bytes`. */
  nonceAt: number;
}

export const NONCE_DIGITS = 16;
const NONCE = "0".repeat(NONCE_DIGITS);
const SMALL = 8_192;

const bodies = new Map<string, BenchBody>();

/**
 * Returns a body of exactly `size` bytes for the dialect, asking for the reply of `spec`; the same object for the
 * same arguments.
 * @throws RangeError where `size` is too small for even the shortest conversation (about 1.5 KB)
 */
export function benchBody(dialect: BenchDialect, size: number, spec: ReplySpec): BenchBody {
  const key = `${dialect} ${size} ${modelFor(spec)}`;
  const known = bodies.get(key);
  if (known !== undefined) return known;
  const random = mulberry32(size);
  const shape = size <= SMALL ? chat(random) : agent(random);
  const options = { model: modelFor(spec), stream: spec.events > 0, ...shape.options };
  const request = dialect === "openai" ? openaiChatRequest : anthropicRequest;
  const history: Exchange[] = [];
  const build = (filler: string): Buffer => {
    const exchanges = [shape.first(filler), ...history, shape.last(history.length)];
    const turns = exchanges.map((exchange, index) => ({ ...TURN, ...exchange, index }));
    return request(turns, turns.length - 1, options);
  };
  let length = build("").length;
  if (length > size) throw new RangeError(`a ${dialect} body needs at least ${length} bytes, not ${size}`);
  for (;;) {
    history.push(shape.next(history.length));
    const longer = build("").length;
    if (longer > size) break;
    length = longer;
  }
  history.pop();
  // What is left over goes to the first message, so that only the last one is new.
  const bytes = build(" .".repeat(size - length).slice(0, size - length));
  const body = { bytes, nonceAt: bytes.lastIndexOf(NONCE) };
  bodies.set(key, body);
  return body;
}

/** Writes `nonce` as decimal digits over the body's nonce that starts at `at`. */
export function writeNonce(bytes: Buffer, at: number, nonce: number): void {
  bytes.write(String(nonce).padStart(NONCE_DIGITS, "0"), at, NONCE_DIGITS, "latin1");
}

type Exchange = Pick<SessionTurn, "input" | "reply">;

interface Shape {
  options: RequestOptions;
  first(filler: string): Exchange;
  next(index: number): Exchange;
  /** The new turn, with the nonce in it. */
  last(index: number): Exchange;
}

const TURN = {
  line: 0,
  sentAt: undefined,
  endedAt: undefined,
  thinking: "off",
  compaction: undefined,
  model: "bench",
  stopReason: "toolUse",
  usage: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0, costUsd: undefined },
};

function chat(random: () => number): Shape {
  const user = (text: string): SessionTurn["input"] => [{ line: 0, role: "user", texts: [text] }];
  const last = `Request ${NONCE}: ${codeText(random, 600)}`;
  return {
    options: { system: "You are a helpful assistant. Answer in a few plain sentences.", tools: [] },
    first: (filler) => ({ input: user(`Hello.${filler}`), reply: [{ type: "text", text: "Hello!" }] }),
    next: () => ({ input: user(codeText(random, 300)), reply: [{ type: "text", text: "That reads well." }] }),
    last: () => ({ input: user(last), reply: [] }),
  };
}

function agent(random: () => number): Shape {
  const id = (index: number): string => `toolu_bench${String(index).padStart(6, "0")}`;
  const call = (index: number): SessionTurn["reply"] => {
    const path = `/home/dev/project/src/part${index}/index.ts`;
    return [
      { type: "text", text: `Next I read ${path}.` },
      { type: "toolCall", id: id(index), name: "read", arguments: { path } },
    ];
  };
  const result = (index: number, text: string): SessionTurn["input"] => [
    { line: 0, role: "toolResult", toolCallId: id(index), texts: [text], isError: false },
  ];
  const last = `read ${NONCE}\n${codeText(random, 1_500)}`;
  return {
    options: {},
    first: (filler) => ({
      input: [{ line: 0, role: "user", texts: [`Please look through this repository.${filler}`] }],
      reply: call(0),
    }),
    next: (index) => ({
      input: result(index, codeText(random, 500 + random() * 6_000)),
      reply: call(index + 1),
    }),
    last: (index) => ({ input: result(index, last), reply: [] }),
  };
}

const LINES: readonly ((n: number) => string)[] = [
  (n) => `import { part${n} } from "./part${n}.ts";`,
  (n) => `export function step${n}(input: string, limit = ${n}): string[] {`,
  (n) => `\tconst rows = input.split("\\n").slice(0, ${n}); // keep the first ${n}`,
  (n) => `\tif (rows.length > ${n}) throw new Error(\`too many rows: \${rows.length} > ${n}\`);`,
  (n) => `\treturn rows.map((row) => row.trim().replace(/\\s+/g, " ")).filter((row) => row !== "part ${n}");`,
  () => "}",
  (n) =>
    `-rw-r--r-- 1 dev dev ${n * 37} Nov  3 10:${String(n % 60).padStart(2, "0")} src/module-${n}/index.ts`,
  (n) => `{"id":${n},"name":"row ${n}","tags":["a","b"],"ratio":${n / 8},"owner":"dev${n}@example.com"}`,
  (n) => `ok ${n} - the reader stops at the limit (${n} ms), naïve café → ${n}`,
  (n) => `# The module reads rows, trims them and hands at most ${n} of them on to the next step.`,
];

function codeText(random: () => number, length: number): string {
  const lines: string[] = [];
  for (let size = 0; size < length; ) {
    const line = LINES[Math.floor(random() * LINES.length)]!(Math.floor(random() * 1_000));
    lines.push(line);
    size += line.length + 1;
  }
  return lines.join("\n");
}

/** A small seeded generator (Tommy Ettinger's mulberry32, public domain): the same bodies in every run. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
