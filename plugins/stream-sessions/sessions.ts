import { timingSafeEqual } from "node:crypto";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { SessionLimits } from "./schema.ts";
import { Session, type SessionParts } from "./session.ts";

const NOBODY = Buffer.alloc(32);

/** All open sessions. One for all generations: a reload keeps them. */
export class Sessions {
  readonly #open = new Map<string, Session>();
  #closing = false;

  get size(): number {
    return this.#open.size;
  }
  get closing(): boolean {
    return this.#closing;
  }
  /** Opens a session. Throws TM_SESSION_LIMIT. */
  open(parts: Omit<SessionParts, "ended">, { maxSessions, ttlMs }: SessionLimits): Session {
    if (this.#open.size >= maxSessions) this.expire(ttlMs);
    if (this.#open.size >= maxSessions) {
      throw new TokenmanError(
        "TM_SESSION_LIMIT",
        `${this.#open.size} stream sessions are open, as many as server.max_stream_sessions allows.`,
      );
    }
    const session = new Session({ ...parts, ended: ({ id }) => void this.#open.delete(id) });
    this.#open.set(session.id, session);
    return session;
  }
  /** The session of that id, where `owner` is its creator's. Throws TM_SESSION_UNKNOWN, the same for whatever reason. */
  find(id: string, owner: Buffer, { ttlMs }: SessionLimits): Session {
    const session = this.#open.get(id);
    // Compared for an unknown one too: the time it takes tells nothing.
    const isOwn = timingSafeEqual(session?.owner ?? NOBODY, owner);
    if (session?.expired(ttlMs)) session.end("expired");
    else if (session !== undefined && isOwn) return session;
    throw new TokenmanError("TM_SESSION_UNKNOWN", "There is no such stream session.");
  }
  expire(ttlMs: number): void {
    for (const session of this.#open.values()) if (session.expired(ttlMs)) session.end("expired");
  }
  /** No session is opened any more; each ends when its reply has. */
  drain(): void {
    this.#closing = true;
    for (const session of this.#open.values()) session.endWhenIdle("shutdown");
  }
  close(): void {
    this.#closing = true;
    for (const session of this.#open.values()) session.end("shutdown");
  }
}
