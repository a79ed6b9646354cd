import {
  type Attempt,
  type EventTransform,
  type Exchange,
  type JsonNode,
  type Reply,
  type SseEvent,
  topLevel,
  withHeader,
} from "@tokenman/plugin-sdk";

/**
 * Sends another model's name in the place of the client's. The reply names the model too and has the client's name put
 * back, which is why it is asked for without a coding.
 */
export function rename(exchange: Exchange, attempt: Attempt): void {
  const { model } = attempt.candidate;
  const pointer = exchange.description?.modelPointer;
  if (model === undefined || pointer === undefined) return;
  attempt.patch([{ op: "replace", pointer, value: model }]);
  attempt.headers = withHeader(attempt.headers, "accept-encoding", "identity");
}

/** Puts the client's name for the model back into the reply to an attempt that was {@link rename}d. Errors stay as they came. */
export async function restore(reply: Reply, exchange: Exchange): Promise<void> {
  const { description } = exchange;
  if (description?.model === undefined || description.modelPointer === undefined || reply.status >= 400)
    return;
  const name = Buffer.from(JSON.stringify(description.model));
  if (reply.streaming) {
    reply.mapEvents(restoring(name));
    return;
  }
  const body = await exchange.wait(reply.read());
  const places = placesIn(body);
  if (places.length > 0) reply.replaceBody(splice(body, places, name));
}

const QUOTED = Buffer.from('"model"');

/** Puts `name`, a JSON literal, where an event names the model; events that do not pass as they are. For one stream. */
export function restoring(name: Buffer): EventTransform {
  return new Restorer(name);
}

/** How a stream's events begin, as far as to the model's name, and what takes its place. */
interface Beginning {
  readonly before: Buffer;
  readonly after: Buffer;
}

/**
 * All chunks of a Chat stream name the model, and begin alike: one that begins with the very bytes of the last one that
 * was parsed has its model at the same place, and is not parsed. 3 µs an event become 0.4.
 */
class Restorer implements EventTransform {
  readonly #name: Buffer;
  #known: Beginning | undefined;

  constructor(name: Buffer) {
    this.#name = name;
  }
  event(event: SseEvent): SseEvent | Buffer {
    const { raw } = event;
    // Inside of a text its quotes are escaped, so this finds members, and not what the model talks about.
    if (event.oversize || !raw.includes(QUOTED)) return event;
    const { before, after } = this.#known ?? {};
    if (before !== undefined && raw.subarray(0, before.length).equals(before)) {
      if (raw.indexOf(QUOTED, before.length) < 0) return Buffer.concat([after!, raw.subarray(before.length)]);
    }
    const data = Buffer.from(event.data);
    const places = placesIn(data);
    if (places.length === 0) return event;
    if (places.length === 1) this.#learn(raw, data, places[0]!);
    return event.withData(splice(data, places, this.#name).toString());
  }
  #learn(raw: Buffer, data: Buffer, { start, end }: JsonNode): void {
    // Data of several lines stands in the event in pieces.
    const at = raw.indexOf(data);
    if (at < 0) return;
    const before = Buffer.from(raw.subarray(0, at + end));
    this.#known = { before, after: Buffer.concat([raw.subarray(0, at + start), this.#name]) };
  }
}

/** Members of an answer or event that may be the object that names the model: Messages' and Responses' streams wrap it. */
const WRAPPERS = ["message", "response"];
const WANTED: ReadonlySet<string> = new Set(["model", ...WRAPPERS]);

/** Where the JSON names the model, in the order of the document; nowhere where it is none. */
function placesIn(json: Buffer): readonly JsonNode[] {
  if (!json.includes(QUOTED)) return [];
  try {
    const top = topLevel(json, WANTED);
    const found = [top.get("model")];
    for (const wrapper of WRAPPERS) {
      const node = top.get(wrapper);
      if (node?.kind === "object") found.push(node.get("model"));
    }
    return found
      .filter((node): node is JsonNode => node?.kind === "string")
      .sort((left, right) => left.start - right.start);
  } catch {
    return [];
  }
}

function splice(json: Buffer, places: readonly JsonNode[], name: Buffer): Buffer {
  const pieces: Buffer[] = [];
  let from = 0;
  for (const { start, end } of places) {
    pieces.push(json.subarray(from, start), name);
    from = end;
  }
  return Buffer.concat([...pieces, json.subarray(from)]);
}
