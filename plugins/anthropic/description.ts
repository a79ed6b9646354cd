import {
  countOf,
  type JsonNode,
  KnownBytes,
  openingOf,
  parsedOf,
  type RequestDescription,
  requestBodies,
  textOf,
  topLevelOf,
} from "@tokenman/plugin-sdk";

const WANTED: ReadonlySet<string> = new Set([
  "model",
  "stream",
  "max_tokens",
  "temperature",
  "tools",
  "mcp_servers",
  "service_tier",
  "speed",
  "system",
  "messages",
]);

const TYPE: ReadonlySet<string> = new Set(["type"]);

/** Types of tools that the client runs, less their date. A tool without a type is the client's too. */
const CLIENT_TOOL = /^(?:custom$|bash_|text_editor_|computer_|memory_|browser_)/;

/** Of lists of tools, which come again with every turn. */
const kinds = new KnownBytes<RequestDescription["tools"]>();

/** Reads what routing and accounting need from a Messages body; undefined where it is no JSON object. */
export function describe(body: Buffer): RequestDescription | undefined {
  const top = topLevelOf(body, WANTED, requestBodies);
  return top === undefined ? undefined : new MessagesDescription(body, top);
}

class MessagesDescription implements RequestDescription {
  readonly model: string | undefined;
  readonly modelPointer: string | undefined;
  readonly stream: boolean;
  readonly maxOutputTokens: number | undefined;
  readonly serviceTier: string | undefined;
  readonly speed: string | undefined;
  readonly #body: Buffer;
  readonly #temperature: JsonNode | undefined;
  readonly #tools: JsonNode | undefined;
  readonly #mcpServers: JsonNode | undefined;
  readonly #system: JsonNode | undefined;
  readonly #messages: JsonNode | undefined;
  #kind: RequestDescription["tools"] | undefined;

  constructor(body: Buffer, top: ReadonlyMap<string, JsonNode>) {
    this.#body = body;
    this.model = textOf(top.get("model"));
    this.modelPointer = this.model === undefined ? undefined : "/model";
    this.stream = top.get("stream")?.kind === "true";
    this.maxOutputTokens = countOf(parsedOf(top.get("max_tokens")));
    this.serviceTier = textOf(top.get("service_tier"));
    this.speed = textOf(top.get("speed"));
    this.#temperature = top.get("temperature");
    this.#tools = top.get("tools");
    this.#mcpServers = top.get("mcp_servers");
    this.#system = top.get("system");
    this.#messages = top.get("messages");
  }

  get opening(): string {
    return openingOf(this.#system, this.#messages, this.#body);
  }

  get sampling(): RequestDescription["sampling"] {
    const temperature = countOf(parsedOf(this.#temperature));
    if (temperature === undefined) return undefined;
    return temperature === 0 ? "fixed" : "random";
  }

  /** Worked out at first use: tool definitions are a large part of an agent's body. */
  get tools(): RequestDescription["tools"] {
    this.#kind ??= toolsOf(this.#body, this.#tools, this.#mcpServers);
    return this.#kind;
  }
}

/** A type that is not known to be the client's counts as the provider's: the careful answer for whoever asks. */
function toolsOf(
  body: Buffer,
  tools: JsonNode | undefined,
  mcpServers: JsonNode | undefined,
): RequestDescription["tools"] {
  try {
    if (mcpServers !== undefined && mcpServers.items().length > 0) return "server";
    return tools === undefined ? "none" : kinds.of(body, tools.start, tools.end, () => kindOf(tools));
  } catch {
    return "none";
  }
}

function kindOf(tools: JsonNode): RequestDescription["tools"] {
  const items = tools.items();
  const isServer = (tool: JsonNode) => {
    const type = textOf(tool.pick(TYPE).get("type"));
    return type !== undefined && !CLIENT_TOOL.test(type);
  };
  if (items.some(isServer)) return "server";
  return items.length > 0 ? "client" : "none";
}
