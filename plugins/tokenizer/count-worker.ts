/** The thread that counts: tiktoken compiled to WebAssembly. An encoding is loaded when the first job needs it. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parentPort } from "node:worker_threads";
import { init, Tiktoken } from "tiktoken/lite/init";
import { breakRuns } from "./cut.ts";
import type { Encoding } from "./encoding.ts";
import type { Job, JobResult, Piece } from "./messages.ts";
import { toolParts } from "./tool-definition.ts";

interface EncodingData {
  readonly bpe_ranks: string;
  readonly special_tokens: Record<string, number>;
  readonly pat_str: string;
}

const require = createRequire(import.meta.url);
/** `require.resolve` of a package's file leads to a copy of it in the bundle: scripts/build-files.ts. */
const DATA: Readonly<Record<Encoding, () => string>> = {
  o200k_base: () => require.resolve("tiktoken/encoders/o200k_base.json"),
  cl100k_base: () => require.resolve("tiktoken/encoders/cl100k_base.json"),
};

const encoders = new Map<Encoding, Tiktoken>();

function encoderOf(encoding: Encoding): Tiktoken {
  const known = encoders.get(encoding);
  if (known !== undefined) return known;
  const data = JSON.parse(readFileSync(DATA[encoding](), "utf8")) as EncodingData;
  const encoder = new Tiktoken(data.bpe_ranks, data.special_tokens, data.pat_str);
  encoders.set(encoding, encoder);
  return encoder;
}

function countPiece(encoder: Tiktoken, { form, text }: Piece): number {
  if (form === "text") return countText(encoder, text);
  const { texts, extra } = toolParts(text);
  return texts.reduce((sum, part) => sum + countText(encoder, part), extra);
}

/** Special tokens in a text are text: a provider does not let a client write them. */
function countText(encoder: Tiktoken, text: string): number {
  let count = 0;
  for (const part of breakRuns(text)) count += encoder.encode_ordinary(part).length;
  return count;
}

type Instantiate = (bytes: Uint8Array, imports: object) => ReturnType<Parameters<typeof init>[0]>;
/** Node's types leave the global's functions out. */
const { instantiate } = (globalThis as unknown as { WebAssembly: { instantiate: Instantiate } }).WebAssembly;

await init((imports) =>
  instantiate(readFileSync(require.resolve("tiktoken/lite/tiktoken_bg.wasm")), imports),
);

parentPort!.on("message", ({ id, encoding, pieces }: Job) => {
  const encoder = encoderOf(encoding);
  const counts = pieces.map((piece) => countPiece(encoder, piece));
  parentPort!.postMessage({ id, counts } satisfies JobResult);
});
