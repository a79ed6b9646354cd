import {
  countOf,
  type JsonNode,
  KnownBytes,
  openingOf,
  parsedOf,
  type RequestDescription,
  recordOf,
  requestBodies,
  textOf,
  topLevelOf,
} from "@tokenman/plugin-sdk";

/** The caps of Chat Completions (new and old name) and of Responses, the one that counts first. */
const CAPS = ["max_completion_tokens", "max_output_tokens", "max_tokens"];
const WANTED: ReadonlySet<string> = new Set([
  "model",
  "stream",
  "tools",
  "functions",
  "web_search_options",
  "stream_options",
  "temperature",
  "seed",
  "n",
  "conversation",
  "background",
  "service_tier",
  "messages",
  "instructions",
  "input",
  ...CAPS,
]);

const TYPE: ReadonlySet<string> = new Set(["type"]);

/** Types of tools that the client runs. A shell may run in the provider's container, so it is not among them. */
const CLIENT_TOOLS: ReadonlySet<string> = new Set([
  "function",
  "custom",
  "namespace",
  "local_shell",
  "apply_patch",
  "computer",
  "computer_use_preview",
]);

/** Of lists of tools, which come again with every turn. */
const kinds = new KnownBytes<RequestDescription["tools"]>();

/** Reads what routing and accounting need from a body of any OpenAI dialect; undefined where it is no JSON object. */
export function describe(body: Buffer): RequestDescription | undefined {
  const top = topLevelOf(body, WANTED, requestBodies);
  return top === undefined ? undefined : new OpenAiDescription(body, top);
}

export class OpenAiDescription implements RequestDescription {
  readonly model: string | undefined;
  readonly modelPointer: string | undefined;
  readonly stream: boolean;
  readonly maxOutputTokens: number | undefined;
  readonly #body: Buffer;
  readonly #top: ReadonlyMap<string, JsonNode>;
  #kind: RequestDescription["tools"] | undefined;

  constructor(body: Buffer, top: ReadonlyMap<string, JsonNode>) {
    this.#body = body;
    this.model = textOf(top.get("model"));
    this.modelPointer = this.model === undefined ? undefined : "/model";
    this.stream = top.get("stream")?.kind === "true";
    const cap = CAPS.find((name) => countOf(parsedOf(top.get(name))) !== undefined);
    this.maxOutputTokens = cap === undefined ? undefined : countOf(parsedOf(top.get(cap)));
    this.#top = top;
  }

  get opening(): string {
    const turns = this.#top.get("messages") ?? this.#top.get("input");
    return openingOf(this.#top.get("instructions"), turns, this.#body);
  }

  get serviceTier(): string | undefined {
    return textOf(this.#top.get("service_tier"));
  }

  get sampling(): RequestDescription["sampling"] {
    if ((countOf(parsedOf(this.#top.get("n"))) ?? 1) > 1) return "random";
    if (typeof parsedOf(this.#top.get("seed")) === "number") return "fixed";
    const temperature = countOf(parsedOf(this.#top.get("temperature")));
    if (temperature === undefined) return undefined;
    return temperature === 0 ? "fixed" : "random";
  }

  /** A conversation at OpenAI gets the turn appended; a background response is fetched later. */
  get stateful(): boolean {
    const conversation = this.#top.get("conversation");
    if (conversation !== undefined && conversation.kind !== "null") return true;
    return this.#top.get("background")?.kind === "true";
  }

  /** What the request says about usage in its stream. "other" is a value that is no object. */
  get streamOptions(): "absent" | "null" | "silent" | "asked" | "declined" | "other" {
    const node = this.#top.get("stream_options");
    if (node === undefined) return "absent";
    if (node.kind === "null") return "null";
    const options = recordOf(parsedOf(node));
    if (options === undefined) return "other";
    if (!Object.hasOwn(options, "include_usage")) return "silent";
    return options["include_usage"] === true ? "asked" : "declined";
  }

  /** Worked out at first use: tool definitions are a large part of an agent's body. */
  get tools(): RequestDescription["tools"] {
    this.#kind ??= toolsOf(this.#body, this.#top);
    return this.#kind;
  }
}

/** A type that is not known to be the client's counts as the provider's: the careful answer for whoever asks. */
function toolsOf(body: Buffer, top: ReadonlyMap<string, JsonNode>): RequestDescription["tools"] {
  try {
    if (top.get("web_search_options")?.kind === "object") return "server";
    const tools = top.get("tools");
    const kind =
      tools === undefined ? "none" : kinds.of(body, tools.start, tools.end, () => kindOf(tools.items()));
    if (kind !== "none") return kind;
    return (top.get("functions")?.items().length ?? 0) > 0 ? "client" : "none";
  } catch {
    return "none";
  }
}

function kindOf(tools: readonly JsonNode[]): RequestDescription["tools"] {
  if (tools.some((tool) => !CLIENT_TOOLS.has(textOf(tool.pick(TYPE).get("type")) ?? "function")))
    return "server";
  return tools.length > 0 ? "client" : "none";
}
