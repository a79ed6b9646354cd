import { type JsonNode, parseIndex, type RawHeaders, TokenmanError, textOf } from "@tokenman/plugin-sdk";
import { WIRES, type Wire, wireNamed, wireOf } from "./wire.ts";

/** What a session was created with: its requests without their conversation. */
export interface Template {
  readonly wire: Wire;
  readonly model: string;
  /** The body up to the conversation's first message. */
  readonly head: Buffer;
  /** The messages or items that the conversation begins with. */
  readonly opening: readonly Buffer[];
}

const TAIL = Buffer.from('],"stream":true}');
const COMMA = Buffer.from(",");

/**
 * Reads the body of a `create`: a request of the dialect, less what the session itself writes. Members keep their
 * spelling and order. Throws TM_BAD_REQUEST.
 */
export function readTemplate(body: Buffer, headers: RawHeaders): Template {
  const root = objectIn(body);
  const asked = root.get("dialect");
  const wire = asked === undefined ? wireOf(headers) : wireNamed(textOf(asked) ?? "");
  if (wire === undefined)
    throw bad(`"dialect" is one of ${WIRES.map(({ name }) => name).join(", ")}, anthropic, openai.`);
  const model = textOf(root.get("model"));
  if (model === undefined || model === "") throw bad('A session needs a "model".');
  const own = new Set(["dialect", "stream", wire.list]);
  const members = root
    .entries()
    .filter(({ key }) => !own.has(key))
    .map(({ key, value }) => `${JSON.stringify(key)}:${value.raw()}`);
  const head = Buffer.from(`{${members.join(",")},"${wire.list}":[`);
  const list = root.get(wire.list);
  if (list !== undefined && list.kind !== "array") throw bad(`"${wire.list}" is a list.`);
  return { wire, model, head, opening: list === undefined ? [] : rawItems(list) };
}

/**
 * The messages of a `send`: `{"content"}` is the user's, an object with a `role` (or, among Responses' items, a `type`)
 * is a message itself, `{"messages": […]}` (`input`) are several, and `{"continue": true}` is none: the conversation goes
 * out as it is. Throws TM_BAD_REQUEST.
 */
export function readMessages(body: Buffer, wire: Wire): readonly Buffer[] {
  const root = objectIn(body);
  const list = root.get(wire.list);
  if (list !== undefined) {
    const items = list.kind === "array" ? rawItems(list) : [];
    if (items.length === 0) throw bad(`"${wire.list}" is a list of at least one message.`);
    return items;
  }
  if (root.get("role") !== undefined || (wire.list === "input" && root.get("type") !== undefined))
    return [Buffer.from(root.raw())];
  if (root.get("continue")?.kind === "true") return [];
  const content = root.get("content");
  if (content === undefined || (content.kind !== "string" && content.kind !== "array"))
    throw bad(`Send {"content": …}, one message with its "role", or {"${wire.list}": […]}.`);
  return [Buffer.from(`{"role":"user","content":${content.raw()}}`)];
}

/** The bytes of a request with these messages. */
export function requestBody(template: Template, messages: readonly Buffer[]): Buffer {
  const parts = [template.head];
  for (const [index, message] of messages.entries()) {
    if (index > 0) parts.push(COMMA);
    parts.push(message);
  }
  parts.push(TAIL);
  return Buffer.concat(parts);
}

function objectIn(body: Buffer): JsonNode {
  try {
    const root = parseIndex(body);
    // Its inside is sent on: a body that only looks like JSON would fail at every turn.
    JSON.parse(root.raw());
    if (root.kind === "object") return root;
  } catch {
    // Told below.
  }
  throw bad("The body is not a JSON object.");
}

function rawItems(list: JsonNode): Buffer[] {
  return list.items().map((item) => {
    if (item.kind !== "object") throw bad("A message is a JSON object.");
    return Buffer.from(item.raw());
  });
}

function bad(message: string): TokenmanError {
  return new TokenmanError("TM_BAD_REQUEST", message);
}
