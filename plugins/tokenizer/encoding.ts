/** The public encodings that are loaded; see github.com/openai/tiktoken. */
export type Encoding = "o200k_base" | "cl100k_base";

/** Models of before GPT-4o, and the embeddings, as tiktoken's table of models has them. */
const CL100K = /^(?:ft:)?(?:gpt-4(?:$|-(?!o))|gpt-3\.5|gpt-35|text-embedding-|davinci-002|babbage-002)/;

/**
 * The encoding that counts a model's tokens: exact for OpenAI's models. No other vendor's is public, so theirs are counted
 * with the newest one, and corrected by what they bill.
 */
export function encodingOf(model: string): Encoding {
  return CL100K.test(bareName(model)) ? "cl100k_base" : "o200k_base";
}

/** The name without a gateway's prefix, in lower case; cut where it is longer than any real one. */
export function bareName(model: string): string {
  const name = model.slice(0, 128).toLowerCase();
  return name.slice(name.lastIndexOf("/") + 1);
}

/** Models that share a tokenizer for all that is known: the name without its date. */
export function familyOf(model: string): string {
  return bareName(model).replace(/-(?:20\d{6}|20\d{2}-\d{2}-\d{2})(?=$|-|:)/, "");
}

/**
 * Tokens of the provider for one of the encoding, before anything was billed. Claude's tokenizers are not public: on a
 * recorded coding session of Claude Opus 4.5, 1.24 was billed for each o200k token; from Opus 4.7 and the fifth generation on there
 * is another one, which Anthropic says makes up to 1.35 times as many of the same text.
 */
export function firstRatio(model: string): number {
  const name = bareName(model);
  if (!name.includes("claude")) return 1;
  return /(?:opus-4[.-][78]|(?:opus|sonnet|haiku|fable|mythos)-(?:[5-9]|\d\d))/.test(name) ? 1.5 : 1.24;
}
