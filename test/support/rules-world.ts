import assert from "node:assert/strict";
import { DecisionMemory, type Tokenizer } from "@tokenman/plugin-sdk";
import { type PluginRun, type PluginSettings, runPlugin } from "@tokenman/plugin-sdk/testkit";
import rules from "../../plugins/rules/index.ts";
import { ANTHROPIC } from "./client-heads.ts";
import "./kernel.ts";

/** Every rule on. */
export const ALL = {
  minify_json: true,
  minify_xml: true,
  collapse_whitespace: true,
  strip_markdown: true,
  dedup_instructions: true,
  tool_output: true,
};

/** A character is a token; `asked` has every text that was ever counted. */
export class CountingTokenizer implements Tokenizer {
  readonly asked: string[] = [];
  answer: (texts: readonly { text: string }[]) => Promise<readonly number[]> = async (texts) =>
    texts.map(({ text }) => text.length);

  async estimate() {
    return { tokens: 1, uncorrected: 1, error: undefined };
  }
  count(_model: string, texts: readonly { text: string }[]): Promise<readonly number[]> {
    this.asked.push(...texts.map(({ text }) => text));
    return this.answer(texts);
  }
  learn() {}
}

/** Runs the plugin alone. */
export async function start(
  config: PluginSettings["config"] = {},
  more: { decisions?: DecisionMemory; tokenizer?: Tokenizer; guard?: unknown } = {},
) {
  const { decisions = new DecisionMemory(), tokenizer = new CountingTokenizer(), guard } = more;
  const services = { decisions, tokenizer, ...(guard !== undefined && { guard }) };
  return runPlugin(rules, { config, services });
}

/** A body in Anthropic's dialect. */
export const anthropic = (messages: readonly object[], more: object = {}): object => ({
  model: "m",
  max_tokens: 9,
  ...more,
  messages,
});
export const user = (...texts: string[]) => ({
  role: "user",
  content: texts.map((text) => ({ type: "text", text })),
});
export const assistant = (text: string) => ({ role: "assistant", content: [{ type: "text", text }] });
/** A call of `tool` and its result. */
export const called = (id: string, tool: string, content: unknown): object[] => [
  { role: "assistant", content: [{ type: "tool_use", id, name: tool, input: {} }] },
  { role: "user", content: [{ type: "tool_result", tool_use_id: id, content }] },
];

/** What the provider gets of it. */
export async function sent(
  run: PluginRun,
  body: unknown,
  headers: readonly string[] = ANTHROPIC,
  path = "/v1/messages",
): Promise<Buffer> {
  const { upstream, reply } = await run.send({ path, headers, body });
  assert.equal(upstream.length, 1, String(reply.body));
  return upstream[0]!.body;
}

/** One JSON text, as somebody wrote it and as small as it can be. */
export const SPACED =
  '{ "big" : 12345678901234567890,\n  "one": 1.0, "one": 1.00,\t"text": "a  \\"b\\" \\u0041 : , { }" }';
export const DENSE = '{"big":12345678901234567890,"one":1.0,"one":1.00,"text":"a  \\"b\\" \\u0041 : , { }"}';
