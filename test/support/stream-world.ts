import assert from "node:assert/strict";
import type { SseEvent } from "@tokenman/plugin-sdk";
import {
  headBytes,
  providersAt,
  type RecordingUpstream,
  recordingUpstream,
} from "@tokenman/plugin-sdk/testkit";
import { startTokenman, type Tokenman } from "./kernel.ts";
import type { SessionClient } from "./stream-session.ts";

/** A bound in time for each test. */
export const limits = { timeout: 20_000 };
/** Of a stream that ends with its connection. */
export const STREAM_HEAD = headBytes(200, ["Content-Type", "text/event-stream", "Connection", "close"]);
/** An event's data. */
export const json = (event: SseEvent | undefined): Record<string, unknown> =>
  event?.json() as Record<string, unknown>;
export const names = (events: readonly SseEvent[]): string[] => events.map(({ event }) => event);
export const ids = (events: readonly SseEvent[]): number[] => events.map(({ id }) => Number(id));

/** All of TokenMan before one recording upstream, for as long as `use` runs. */
export async function world(
  use: (tokenman: Tokenman, upstream: RecordingUpstream) => Promise<void>,
  config = "",
): Promise<void> {
  await using upstream = await recordingUpstream();
  await using tokenman = await startTokenman({ config: `${config}\n${providersAt(upstream.url)}` });
  await use(tokenman, upstream);
}

/** Sends, and reads the turn's events to its end, from behind the event `after` or from the first. */
export async function turn(
  session: SessionClient,
  body: string | object,
  after?: number,
): Promise<SseEvent[]> {
  const reply = await session.send(body);
  assert.equal(reply.status, 202, reply.body.toString());
  const { turn: number } = JSON.parse(reply.body.toString());
  await using events = session.events(after);
  for (const all: SseEvent[] = []; ; ) {
    const event = await events.next();
    if (event === undefined) assert.fail("the events ended");
    all.push(event);
    if (/^tokenman\.turn\.(completed|failed)$/.test(event.event) && json(event)["turn"] === number)
      return all;
  }
}
