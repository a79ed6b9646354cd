import { definePlugin } from "@tokenman/plugin-sdk";
import type { Reader } from "./reader.ts";
import { routesOf } from "./routes.ts";
import { limitsOf, sessionsSchema } from "./schema.ts";
import { Sessions } from "./sessions.ts";

/** How soon after their time idle sessions and stalled readers go. */
const CHECK_MS = 5_000;
/** Well below what proxies and clients take for a dead connection. */
const KEEP_ALIVE_MS = 15_000;

/** Two-way sessions: TokenMan holds the conversation, and each message sent is an exchange like any other. */
export default definePlugin({
  name: "stream-sessions",
  version: "0.1.0",
  apiVersion: 1,
  description: "Two-way sessions: holds conversations, streams replies, resumes",
  section: "stream_sessions",
  configSchema: sessionsSchema,
  async setup(ctx) {
    const limits = limitsOf(ctx.config, ctx.host.config());
    const sessions = await ctx.keep(
      "sessions",
      () => new Sessions(),
      (kept) => kept.close(),
    );
    /** Those of this generation: each holds it until it ends. */
    const readers = new Set<Reader>();
    const reading = (reader: Reader): void => {
      readers.add(reader);
      reader.whenClosed(() => readers.delete(reader));
    };
    for (const route of routesOf({ host: ctx.host, sessions, limits, reading }))
      ctx.contribute("route", route);
    ctx.every("idle sessions", CHECK_MS, () => {
      sessions.expire(limits.ttlMs);
      for (const reader of readers) reader.check(limits.stallMs);
    });
    ctx.every("keep-alive", KEEP_ALIVE_MS, () => {
      for (const reader of readers) reader.keepAlive();
    });
    ctx.pipeline((_config, hooks) => {
      hooks.lifecycle.for("retire").tap(() => {
        for (const reader of readers) reader.leave();
      });
      hooks.lifecycle.for("drain").tap(() => sessions.drain());
    });
  },
});
