import {
  type DecisionBook,
  type Exchange,
  type JsonNode,
  type JsonPatch,
  KnownBytes,
  textOf,
} from "@tokenman/plugin-sdk";
import { hashOf, type PromptParts, shortHash } from "./prompt.ts";

/** A list of more tools, or a session with more, is left as it comes. */
const MAX_TOOLS = 512;
const MAX_SESSIONS = 10_000;
const MAX_NAMES = 20_000;
/** A client chooses its session's id. */
const MAX_SESSION = 200;

/** The tools of a request in the order in which they are to be sent. */
export interface ToolOrder {
  readonly tools: readonly JsonNode[];
  /** Of the list as it is then sent. */
  readonly hash: string;
}

/** What is known of a session's tools. */
interface Known {
  /** The ids of all that it ever had, in the order in which they were first sent. */
  ids: string[];
  /** Whether it ever sent them in another order: only then it is worth remembering on disk. */
  isShuffled: boolean;
  /** Of the list that came last, the places of its tools in the order to send (undefined: as they came), and that list's hash. */
  last: string;
  order: readonly number[] | undefined;
  hash: string;
}

/** The ids of a list's tools, in order; undefined where it cannot be told which is which. */
const lists = new KnownBytes<readonly string[] | undefined>();
const ids = new Map<string, string>();

/**
 * Some clients keep their tools in a hash map, and send the same ones in another order from turn to turn; to a provider's
 * prompt cache that is another prompt. The order is kept in which a session's tools first came, new ones behind those
 * before. Which tool stands first means nothing, and of each the bytes stay. By hashes of the tools' names, so that one
 * that changes keeps its place.
 */
export class ToolOrders {
  readonly #book: DecisionBook;
  readonly #sessions = new Map<string, Known>();

  constructor(book: DecisionBook) {
    this.#book = book;
  }

  /**
   * The order to send, or undefined where that is the client's. `decides`: whether the session may get an order that it
   * does not have yet. A promise only where the disk must be asked.
   */
  of(
    exchange: Exchange,
    body: Buffer,
    parts: PromptParts,
    decides: boolean,
  ): ToolOrder | undefined | Promise<ToolOrder | undefined> {
    const { tools } = parts;
    const items = tools?.items();
    if (tools === undefined || items === undefined || items.length < 2 || items.length > MAX_TOOLS)
      return undefined;
    const session = exchange.session.slice(0, MAX_SESSION);
    const known = this.#sessions.get(session);
    if (known !== undefined) return this.#ordered(session, known, { body, tools, items }, decides);
    const found = this.#book.find(keyOf(session));
    const go = (text: string | undefined) =>
      this.#ordered(session, this.#sessions.get(session) ?? parsed(text), { body, tools, items }, decides);
    return found instanceof Promise ? found.then(go) : go(found);
  }

  #ordered(
    session: string,
    known: Known,
    {
      body,
      tools,
      items,
    }: { readonly body: Buffer; readonly tools: JsonNode; readonly items: readonly JsonNode[] },
    decides: boolean,
  ): ToolOrder | undefined {
    if (!decides && !known.isShuffled) return undefined;
    const came = hashOf(body, tools);
    if (known.last !== came && !this.#take(session, known, { body, tools, items, came })) return undefined;
    const { order, hash } = known;
    return order === undefined ? undefined : { tools: order.map((index) => items[index]!), hash };
  }

  /** Works out the order of a list that is not the one before. False where it stays as it came. */
  #take(
    session: string,
    known: Known,
    {
      body,
      tools,
      items,
      came,
    }: {
      readonly body: Buffer;
      readonly tools: JsonNode;
      readonly items: readonly JsonNode[];
      readonly came: string;
    },
  ): boolean {
    const listed = lists.of(body, tools.start, tools.end, () => idsOf(body, items));
    if (listed === undefined) return false;
    const places = new Map(known.ids.map((id, place) => [id, place]));
    const added = listed.filter((id) => !places.has(id));
    if (known.ids.length + added.length > MAX_TOOLS) return false;
    for (const id of added) {
      places.set(id, known.ids.length);
      known.ids.push(id);
    }
    const order = [...listed.keys()].sort((a, b) => places.get(listed[a]!)! - places.get(listed[b]!)!);
    const isShuffled = order.some((index, place) => index !== place);
    known.last = came;
    known.order = isShuffled ? order : undefined;
    known.hash = isShuffled ? shortHash(listBytes(body, tools, items, order)) : came;
    if ((isShuffled && !known.isShuffled) || (known.isShuffled && added.length > 0))
      this.#book.set(keyOf(session), known.ids.join(" "));
    known.isShuffled ||= isShuffled;
    this.#sessions.delete(session);
    this.#sessions.set(session, known);
    if (this.#sessions.size > MAX_SESSIONS) this.#sessions.delete(this.#sessions.keys().next().value!);
    return true;
  }
}

/**
 * The edits that put the tools into their order; the one at the place `marked` gets a cache mark besides. None where
 * another plugin changed a tool.
 */
export function orderPatches(
  exchange: Exchange,
  parts: PromptParts,
  marked = -1,
  mark: object = {},
): JsonPatch[] {
  if (parts.order === undefined || !toolsStand(exchange)) return [];
  return parts.order.tools.flatMap((tool, place): JsonPatch[] => {
    if (!isMoved(parts, place)) return [];
    const json = place === marked ? withMember(tool.raw(), "cache_control", mark) : tool.raw();
    return [{ op: "replace", pointer: `${parts.toolsAt}/${place}`, json }];
  });
}

/** Whether the tool that is sent at a place is another than the client's there. */
export function isMoved({ tools, order }: PromptParts, place: number): boolean {
  return order !== undefined && order.tools[place] !== tools?.at(place);
}

function toolsStand(exchange: Exchange): boolean {
  if (!exchange.edited) return true;
  return exchange.spans.every((span) => {
    if (span.kind !== "tool-definition") return true;
    const { node, text } = exchange.segmentOf(span);
    return exchange.stands(span.pointer) && text === (node.kind === "string" ? textOf(node) : node.raw());
  });
}

/** An object's source text with one more member. */
function withMember(json: string, key: string, value: object): string {
  const open = json.lastIndexOf("}");
  const isEmpty = /^\{\s*$/.test(json.slice(0, open));
  return `${json.slice(0, open)}${isEmpty ? "" : ","}${JSON.stringify(key)}:${JSON.stringify(value)}}`;
}

/** The list's bytes with its tools in another order: what stands between them stays. */
function listBytes(
  body: Buffer,
  tools: JsonNode,
  items: readonly JsonNode[],
  order: readonly number[],
): Buffer {
  const pieces: Buffer[] = [];
  let from = tools.start;
  for (const [place, index] of order.entries()) {
    const { start, end } = items[place]!;
    pieces.push(body.subarray(from, start), body.subarray(items[index]!.start, items[index]!.end));
    from = end;
  }
  pieces.push(body.subarray(from, tools.end));
  return Buffer.concat(pieces);
}

const NAMED: ReadonlySet<string> = new Set(["type", "name", "function", "custom", "server_label"]);
const NAME: ReadonlySet<string> = new Set(["name"]);

function idsOf(body: Buffer, items: readonly JsonNode[]): readonly string[] | undefined {
  const found: string[] = [];
  for (const tool of items) {
    if (tool.kind !== "object" || !isText(body, tool)) return undefined;
    const members = tool.pick(NAMED);
    const inner = members.get("function") ?? members.get("custom");
    const name = textOf((inner?.kind === "object" ? inner.pick(NAME) : members).get("name"));
    found.push(
      idOf(`${textOf(members.get("type")) ?? ""} ${name ?? textOf(members.get("server_label")) ?? ""}`),
    );
  }
  return new Set(found).size === found.length ? found : undefined;
}

/** Whether its bytes are those of its text: a literal that is no UTF-8 would not come out as it went in. */
function isText(body: Buffer, tool: JsonNode): boolean {
  const text = tool.raw();
  return !text.includes("\ufffd") || Buffer.from(text).equals(body.subarray(tool.start, tool.end));
}

function idOf(name: string): string {
  let id = ids.get(name);
  if (id === undefined) {
    if (ids.size === MAX_NAMES) ids.clear();
    id = shortHash(name);
    ids.set(name, id);
  }
  return id;
}

function keyOf(session: string): string {
  return `tools ${shortHash(session)}`;
}

function parsed(text: string | undefined): Known {
  const found = text?.split(" ").filter((id) => /^[\w-]{16}$/.test(id)) ?? [];
  return {
    ids: [...new Set(found)].slice(0, MAX_TOOLS),
    isShuffled: found.length > 0,
    last: "",
    order: undefined,
    hash: "",
  };
}
