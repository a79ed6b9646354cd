import { type SseEvent, SseSplitter } from "@tokenman/plugin-sdk";

/** The events in the bytes of a stream. */
export function splitEvents(
  bytes: Buffer | string,
  options: { readonly maxEventBytes?: number } = {},
): SseEvent[] {
  const events: SseEvent[] = [];
  new SseSplitter(options).push(Buffer.from(bytes), (event) => events.push(event));
  return events;
}

/** A stream of blocks with an `event` line and JSON data. */
export function namedEvents(...blocks: readonly (readonly [name: string, data: unknown])[]): SseEvent[] {
  return splitEvents(
    blocks.map(([name, data]) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`).join(""),
  );
}

/** A stream of blocks with data alone; strings go out as they are. */
export function dataEvents(...data: readonly unknown[]): SseEvent[] {
  return splitEvents(
    data.map((one) => `data: ${typeof one === "string" ? one : JSON.stringify(one)}\n\n`).join(""),
  );
}
