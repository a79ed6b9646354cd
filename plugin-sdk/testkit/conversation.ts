import { Random } from "./random.ts";
import type { VendorDialect } from "./vendor-reply.ts";

/** One request of a growing conversation. */
export interface Turn {
  /** 1 for the first. */
  readonly number: number;
  readonly dialect: VendorDialect;
  readonly path: string;
  readonly body: Buffer;
}

export interface ConversationOptions {
  readonly dialect: VendorDialect;
  /** The same seed gives the same bytes. */
  readonly seed: number;
  /** How many requests. Default 6. */
  readonly turns?: number;
  /** Texts to choose from, beside the usual ones: put in what your plugin looks for. */
  readonly texts?: readonly string[];
}

const PATHS: Readonly<Record<VendorDialect, string>> = {
  "anthropic-messages": "/v1/messages",
  "openai-chat": "/v1/chat/completions",
  "openai-responses": "/v1/responses",
};

const TEXTS: readonly string[] = [
  "Fix the failing test, please.",
  "Grüße aus München – 東京へ 👩‍💻",
  "line one\n\n\n    line two\t\r\n",
  '{ "rows" : [ 1.0, 12345678901234567890, true ], "note": "a \\"quoted\\" word" }',
  "<file>\n  <line>1</line>\n</file>",
  "# Title\n\n**bold** and `code`\n\n```ts\nconst x = 1;\n```\n",
  "",
  " ",
  "\u0000\u001f\u2028 control characters",
  "a".repeat(2_000),
  "the same line again\n".repeat(40),
];

/**
 * The requests of an agent's conversation as its client would send them, in turn: each repeats the one before it byte
 * for byte and adds what came since. Texts, tools, tool calls with their results, and sealed thinking are mixed at
 * random; an Anthropic client moves its cache breakpoint to the newest message each time.
 */
export function conversation(options: ConversationOptions): readonly Turn[] {
  const { dialect, seed, turns = 6, texts = [] } = options;
  const random = new Random(seed);
  const writer = new Writer(random, [...TEXTS, ...texts, ...texts]);
  const shape = writers[dialect](writer);
  const items: string[] = [];
  return Array.from({ length: turns }, (_, index) => {
    if (index > 0) items.push(...shape.answered());
    items.push(...shape.asked());
    const body = Buffer.from(shape.body(items));
    return { number: index + 1, dialect, path: PATHS[dialect], body };
  });
}

/** `count` conversations for a property test, of all three dialects in turn. */
export function* conversations(
  count: number,
  options: Omit<ConversationOptions, "dialect" | "seed"> & { readonly seed?: number } = {},
): Generator<readonly Turn[]> {
  const dialects = Object.keys(PATHS) as VendorDialect[];
  for (let index = 0; index < count; index++) {
    const seed = (options.seed ?? 1) + index;
    yield conversation({ ...options, dialect: dialects[index % dialects.length]!, seed });
  }
}

/** What a client sends: texts of its own, then what the model said, as JSON text. */
interface Shape {
  /** The items of a user's or a tool's turn. */
  asked(): string[];
  /** The items of what the model had answered before. */
  answered(): string[];
  body(items: readonly string[]): string;
}

/** Writes JSON the way this client happens to: its spacing and its escapes are chosen once. */
class Writer {
  readonly random: Random;
  readonly #texts: readonly string[];
  readonly #gap: string;
  readonly #escapes: boolean;
  #ids = 0;
  /** Tool calls that wait for their results. */
  calls: string[] = [];

  constructor(random: Random, texts: readonly string[]) {
    this.random = random;
    this.#texts = texts;
    this.#gap = random.pick(["", " "]);
    this.#escapes = random.chance(0.3);
  }
  text(): string {
    const count = 1 + this.random.below(2);
    return Array.from({ length: count }, () => this.random.pick(this.#texts)).join(" ");
  }
  id(prefix: string): string {
    return `${prefix}_${++this.#ids}_${this.random.below(1e9).toString(36)}`;
  }
  /** JSON text of a value; strings in it are escaped as this client does. */
  json(value: unknown): string {
    if (Array.isArray(value)) return this.array(value.map((item) => this.json(item)));
    if (typeof value === "object" && value !== null)
      return this.object(Object.entries(value).map(([key, member]) => [key, this.json(member)]));
    const text = JSON.stringify(value);
    if (!this.#escapes) return text;
    return text.replace(
      /[\u0080-\uffff]/g,
      (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
    );
  }
  object(members: readonly (readonly [string, string])[]): string {
    return `{${members.map(([key, json]) => `${JSON.stringify(key)}:${this.#gap}${json}`).join(`,${this.#gap}`)}}`;
  }
  array(items: readonly string[]): string {
    return `[${items.join(`,${this.#gap}`)}]`;
  }
  input(): object {
    return { path: `src/${this.random.below(100)}.ts`, lines: [1.5, this.random.below(1000)] };
  }
}

const PARAMETERS = { type: "object", properties: { path: { type: "string", description: "Where." } } };
const EPHEMERAL = { type: "ephemeral" };

const writers: Readonly<Record<VendorDialect, (writer: Writer) => Shape>> = {
  "anthropic-messages": (writer) => {
    const { random } = writer;
    const head: readonly (readonly [string, string])[] = [
      ["model", writer.json("claude-test")],
      ["max_tokens", "1024"],
      ...(random.chance(0.8)
        ? [
            [
              "system",
              writer.json([{ type: "text", text: writer.text(), cache_control: EPHEMERAL }]),
            ] as const,
          ]
        : []),
      ["tools", writer.json([{ name: "read", description: writer.text(), input_schema: PARAMETERS }])],
    ];
    const message = (role: string, content: unknown) => writer.json({ role, content });
    return {
      asked() {
        const results = writer.calls.map((id) => ({
          type: "tool_result",
          tool_use_id: id,
          content: random.chance(0.5) ? writer.text() : [{ type: "text", text: writer.text() }],
        }));
        writer.calls = [];
        return [message("user", [...results, { type: "text", text: writer.text() || "." }])];
      },
      answered() {
        const blocks: object[] = [];
        if (random.chance(0.4))
          blocks.push({ type: "thinking", thinking: writer.text(), signature: writer.id("sig") });
        blocks.push({ type: "text", text: writer.text() });
        if (random.chance(0.6)) {
          const id = writer.id("toolu");
          writer.calls.push(id);
          blocks.push({ type: "tool_use", id, name: "read", input: writer.input() });
        }
        return [message("assistant", blocks)];
      },
      body(items) {
        const last = items.at(-1)!;
        // The breakpoint goes to the last block of the last message, and is gone from there the next time.
        const marked = `${last.slice(0, -3)},"cache_control":${writer.json(EPHEMERAL)}${last.slice(-3)}`;
        const messages = writer.array([...items.slice(0, -1), marked]);
        return writer.object([...head, ["messages", messages], ["stream", "true"]]);
      },
    };
  },
  "openai-chat": (writer) => {
    const { random } = writer;
    const tools = [
      { type: "function", function: { name: "read", description: writer.text(), parameters: PARAMETERS } },
    ];
    const head: readonly (readonly [string, string])[] = [
      ["model", writer.json("gpt-test")],
      ["tools", writer.json(tools)],
    ];
    const system = writer.json({ role: "system", content: writer.text() });
    return {
      asked() {
        const results = writer.calls.map((id) =>
          writer.json({ role: "tool", tool_call_id: id, content: writer.text() }),
        );
        writer.calls = [];
        const content = random.chance(0.5) ? writer.text() : [{ type: "text", text: writer.text() }];
        return [...results, writer.json({ role: "user", content })];
      },
      answered() {
        if (random.chance(0.5)) return [writer.json({ role: "assistant", content: writer.text() })];
        const id = writer.id("call");
        writer.calls.push(id);
        const call = { name: "read", arguments: JSON.stringify(writer.input()) };
        const tool_calls = [{ id, type: "function", function: call }];
        return [writer.json({ role: "assistant", content: null, tool_calls })];
      },
      body: (items) => writer.object([...head, ["messages", writer.array([system, ...items])]]),
    };
  },
  "openai-responses": (writer) => {
    const { random } = writer;
    const head: readonly (readonly [string, string])[] = [
      ["model", writer.json("gpt-test")],
      ["instructions", writer.json(writer.text())],
      [
        "tools",
        writer.json([{ type: "function", name: "read", description: writer.text(), parameters: PARAMETERS }]),
      ],
    ];
    return {
      asked() {
        const results = writer.calls.map((id) =>
          writer.json({ type: "function_call_output", call_id: id, output: writer.text() }),
        );
        writer.calls = [];
        const content = [{ type: "input_text", text: writer.text() }];
        return [...results, writer.json({ type: "message", role: "user", content })];
      },
      answered() {
        const items: string[] = [];
        if (random.chance(0.4))
          items.push(writer.json({ type: "reasoning", summary: [], encrypted_content: writer.id("enc") }));
        const content = [{ type: "output_text", text: writer.text() }];
        items.push(writer.json({ type: "message", role: "assistant", content }));
        if (random.chance(0.5)) {
          const call_id = writer.id("call");
          writer.calls.push(call_id);
          const call = {
            type: "function_call",
            call_id,
            name: "read",
            arguments: JSON.stringify(writer.input()),
          };
          items.push(writer.json(call));
        }
        return items;
      },
      body: (items) => writer.object([...head, ["input", writer.array(items)], ["store", "false"]]),
    };
  },
};
