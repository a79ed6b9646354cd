import { z } from "@tokenman/plugin-sdk";

/** `[stream_sessions]`. How many there may be, and for how long, says `[server]`. */
export const sessionsSchema = z
  .strictObject({
    replay_bytes: z
      .int()
      .min(4_096)
      .default(1_048_576)
      .describe("Bytes of events that each session keeps for readers that are behind, or come back."),
    cancel_unread: z
      .boolean()
      .default(false)
      .describe("Call a reply off when the last reader of its events leaves."),
  })
  .describe("Two-way sessions: TokenMan holds the conversation, clients send messages and read events.");

/** What a session may take and how long it may live. Times in milliseconds. */
export interface SessionLimits {
  readonly maxSessions: number;
  /** How long it may be idle; 0 is for ever. */
  readonly ttlMs: number;
  /** Of the largest request; 0 is no limit. */
  readonly maxBodyBytes: number;
  /** How long a reader may take nothing; 0 is for ever. */
  readonly stallMs: number;
  readonly replayBytes: number;
  readonly cancelUnread: boolean;
}

/** The limits that a generation's config sets. */
export function limitsOf(
  own: z.output<typeof sessionsSchema>,
  config: Readonly<Record<string, unknown>>,
): SessionLimits {
  const server = config["server"] as Readonly<
    Record<"max_stream_sessions" | "session_ttl" | "max_body_size" | "write_timeout", number>
  >;
  return {
    maxSessions: server.max_stream_sessions,
    ttlMs: server.session_ttl * 1_000,
    maxBodyBytes: server.max_body_size,
    stallMs: server.write_timeout * 1_000,
    replayBytes: own.replay_bytes,
    cancelUnread: own.cancel_unread,
  };
}
