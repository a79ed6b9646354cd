import Anthropic from "@anthropic-ai/sdk";
import type { VendorDialect } from "@tokenman/plugin-sdk/testkit";
import OpenAI from "openai";

export interface SdkOptions {
  /** Offers a tool that the provider runs. */
  readonly serverTools?: boolean;
  /** Called with the text so far, at each part of it. */
  readonly onText?: (text: string) => void;
  /** The model's name. */
  readonly model?: string;
}

/** One way of one vendor's SDK to ask; it does not try again itself. */
export interface Sdk {
  readonly dialect: VendorDialect;
  /** Name of the provider that the client's key belongs to. */
  readonly provider: "anthropic" | "openai";
  /** The whole text. Rejects with the SDK's own error. */
  ask(proxy: string, options?: SdkOptions): Promise<string>;
  /** The same, streamed. Rejects where the stream breaks, or has an error in it. */
  stream(proxy: string, options?: SdkOptions): Promise<string>;
}

/** A redirect is shown, and not followed. */
const COMMON = { maxRetries: 0, fetchOptions: { redirect: "manual" } } as const;
const anthropic = (proxy: string) => new Anthropic({ apiKey: "sk-ant-api03-x", baseURL: proxy, ...COMMON });
const openai = (proxy: string) => new OpenAI({ apiKey: "sk-x", baseURL: `${proxy}/v1`, ...COMMON });
const MESSAGES = [{ role: "user" as const, content: "hi" }];

/** The parts of a stream put together. */
async function joined<T>(
  stream: AsyncIterable<T>,
  textOf: (event: T) => string | undefined,
  onText: SdkOptions["onText"],
): Promise<string> {
  let text = "";
  for await (const event of stream) {
    const more = textOf(event);
    if (more === undefined || more === "") continue;
    text += more;
    onText?.(text);
  }
  return text;
}

const messagesParams = ({ model = "claude-x", serverTools }: SdkOptions) => ({
  model,
  max_tokens: 9,
  messages: MESSAGES,
  ...(serverTools && { tools: [{ type: "web_search_20250305" as const, name: "web_search" as const }] }),
});
const chatParams = ({ model = "gpt-x", serverTools }: SdkOptions) => ({
  model,
  messages: MESSAGES,
  ...(serverTools && { web_search_options: {} }),
});
const responsesParams = ({ model = "gpt-x", serverTools }: SdkOptions) => ({
  model,
  input: "hi",
  ...(serverTools && { tools: [{ type: "web_search" as const }] }),
});

/** The vendors' SDKs, in every dialect that they speak. */
export const SDKS: Readonly<Record<string, Sdk>> = {
  "@anthropic-ai/sdk": {
    dialect: "anthropic-messages",
    provider: "anthropic",
    async ask(proxy, options = {}) {
      const { content } = await anthropic(proxy).messages.create(messagesParams(options));
      return content.map((block) => (block.type === "text" ? block.text : "")).join("");
    },
    async stream(proxy, options = {}) {
      const stream = await anthropic(proxy).messages.create({ ...messagesParams(options), stream: true });
      const textOf = (event: Anthropic.RawMessageStreamEvent) =>
        event.type === "content_block_delta" && event.delta.type === "text_delta"
          ? event.delta.text
          : undefined;
      return joined(stream, textOf, options.onText);
    },
  },
  "openai (chat)": {
    dialect: "openai-chat",
    provider: "openai",
    async ask(proxy, options = {}) {
      const { choices } = await openai(proxy).chat.completions.create(chatParams(options));
      return choices[0]?.message.content ?? "";
    },
    async stream(proxy, options = {}) {
      const stream = await openai(proxy).chat.completions.create({ ...chatParams(options), stream: true });
      return joined(stream, (chunk) => chunk.choices[0]?.delta.content ?? undefined, options.onText);
    },
  },
  "openai (responses)": {
    dialect: "openai-responses",
    provider: "openai",
    async ask(proxy, options = {}) {
      return (await openai(proxy).responses.create(responsesParams(options))).output_text;
    },
    async stream(proxy, options = {}) {
      const stream = await openai(proxy).responses.create({ ...responsesParams(options), stream: true });
      const textOf = (event: OpenAI.Responses.ResponseStreamEvent) => {
        // This one hands errors on as events, for its user to throw.
        if (event.type === "error" || event.type === "response.failed")
          throw new Error(JSON.stringify(event));
        return event.type === "response.output_text.delta" ? event.delta : undefined;
      };
      return joined(stream, textOf, options.onText);
    },
  },
};
