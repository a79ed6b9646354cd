import { createHash } from "node:crypto";
import { type Json, numberIn, textIn } from "./json.ts";
import { RequestError } from "./request-error.ts";
import { tokensOf } from "./tokens.ts";

const MAX_DIMENSIONS = 8_192;
const MAX_INPUTS = 2_048;

/** The reply to an Embeddings request: a unit vector for each input, the same for the same text. */
export function embed(body: Json, defaultDimensions: number): Json {
  const model = textIn(body["model"]);
  if (model === "") throw missing("model");
  const inputs = inputsOf(body["input"]);
  const dimensions = numberIn(body["dimensions"]) ?? defaultDimensions;
  if (!Number.isInteger(dimensions) || dimensions < 1 || dimensions > MAX_DIMENSIONS) {
    throw new RequestError(`dimensions: must be a whole number from 1 to ${MAX_DIMENSIONS}`, {
      param: "dimensions",
    });
  }
  const isBase64 = body["encoding_format"] === "base64";
  const data = inputs.map((input, index) => {
    const vector = unitVector(typeof input === "string" ? input : JSON.stringify(input), dimensions);
    return { object: "embedding", index, embedding: isBase64 ? base64(vector) : Array.from(vector) };
  });
  const tokens = inputs.reduce(
    (sum, input) => sum + (typeof input === "string" ? tokensOf(input) : input.length),
    0,
  );
  return { object: "list", data, model, usage: { prompt_tokens: tokens, total_tokens: tokens } };
}

/** Texts, or lists of token numbers. */
function inputsOf(input: unknown): readonly (string | readonly number[])[] {
  if (typeof input === "string") return [input];
  if (!Array.isArray(input) || input.length === 0) throw missing("input");
  if (input.every((item) => typeof item === "number")) return [input];
  const isInput = (item: unknown) =>
    typeof item === "string" || (Array.isArray(item) && item.every((token) => typeof token === "number"));
  if (input.length > MAX_INPUTS || !input.every(isInput)) {
    throw new RequestError(`input: must be text, token numbers, or a list of at most ${MAX_INPUTS} of them`, {
      param: "input",
    });
  }
  return input;
}

/** Numbers between -1 and 1 from repeated hashing of the text, scaled to length 1. */
function unitVector(text: string, dimensions: number): Float32Array {
  const vector = new Float32Array(dimensions);
  let block = createHash("sha256").update(text).digest();
  let squares = 0;
  for (let index = 0; index < dimensions; index++) {
    const at = (index % 8) * 4;
    if (index > 0 && at === 0) block = createHash("sha256").update(block).digest();
    const value = block.readInt32LE(at) / 2 ** 31;
    vector[index] = value;
    squares += value * value;
  }
  const length = Math.sqrt(squares) || 1;
  return vector.map((value) => value / length);
}

/** 32-bit floats, little-endian: what the vendor's SDKs ask for and decode. */
function base64(vector: Float32Array): string {
  const bytes = Buffer.alloc(vector.length * 4);
  for (const [index, value] of vector.entries()) bytes.writeFloatLE(value, index * 4);
  return bytes.toString("base64");
}

function missing(param: string): RequestError {
  return new RequestError(`the parameter ${param} is required`, {
    param,
    code: "missing_required_parameter",
  });
}
