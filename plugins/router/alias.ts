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
  const restored = withName(body, name);
  if (restored !== body) reply.replaceBody(restored);
}

const QUOTED = Buffer.from('"model"');

/** Puts `name`, a JSON literal, where an event names the model; events that do not pass as they are. */
export function restoring(name: Buffer): EventTransform {
  return {
    event(event: SseEvent): SseEvent | Buffer {
      // Inside of a text its quotes are escaped, so this finds members, and not what the model talks about.
      if (event.oversize || !event.raw.includes(QUOTED)) return event;
      const data = Buffer.from(event.data);
      const restored = withName(data, name);
      return restored === data ? event : event.withData(restored.toString());
    },
  };
}

/** Members of an answer or event that may be the object that names the model: Messages' and Responses' streams wrap it. */
const WRAPPERS = ["message", "response"];
const WANTED: ReadonlySet<string> = new Set(["model", ...WRAPPERS]);

/** The JSON with `name` in the place of the model's; the buffer itself where it names none. */
function withName(json: Buffer, name: Buffer): Buffer {
  if (!json.includes(QUOTED)) return json;
  let places: JsonNode[];
  try {
    places = modelsIn(json);
  } catch {
    return json;
  }
  if (places.length === 0) return json;
  const pieces: Buffer[] = [];
  let from = 0;
  for (const { start, end } of places) {
    pieces.push(json.subarray(from, start), name);
    from = end;
  }
  return Buffer.concat([...pieces, json.subarray(from)]);
}

/** In the order of the document. */
function modelsIn(json: Buffer): JsonNode[] {
  const top = topLevel(json, WANTED);
  const found = [top.get("model")];
  for (const wrapper of WRAPPERS) {
    const node = top.get(wrapper);
    if (node?.kind === "object") found.push(node.get("model"));
  }
  return found
    .filter((node) => node?.kind === "string")
    .sort((left, right) => left!.start - right!.start) as JsonNode[];
}
