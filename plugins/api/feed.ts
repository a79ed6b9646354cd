import type { ServerResponse } from "node:http";
import type { Alert, Ledger, LedgerBegin, LedgerEnd, LedgerEvent } from "@tokenman/plugin-sdk";
import { usd } from "./figures.ts";

const MAX_TEXT = 500;
/** What may wait in one client's socket before it is left behind. */
const MAX_WAITING_BYTES = 64 * 1024;

export const MAX_CLIENTS = 100;
/** How long events are kept coming for a client that left and may come back. */
const RETURN_MS = 300_000;

interface FeedEvent {
  readonly number: number;
  readonly kind: "begin" | "end" | "alert";
  readonly data: object;
  /** As it goes out; made for the first client that gets it. */
  text: string | undefined;
}

interface Client {
  readonly response: ServerResponse;
  readonly generation: number;
  /** Of the last event that it got. */
  at: number;
  /** Its socket is full: it catches up from the ring once that has drained. */
  isBehind: boolean;
}

/**
 * The live feed: a ring of the newest events and the clients that follow it. The ring is the only buffer there is: a
 * client that reads slowly is left behind and catches up from it, and one that is too far behind is told that it missed
 * something. One feed for all generations.
 */
export class Feed {
  readonly #bootId: string;
  readonly #ring: FeedEvent[] = [];
  readonly #size: number;
  readonly #clients = new Set<Client>();
  /** `stop` is there while it is listened to. */
  readonly #sources = new Map<Ledger, { users: number; stop: (() => void) | undefined }>();
  #isListening = false;
  #leaving: NodeJS.Timeout | undefined;
  #last = 0;

  constructor(bootId: string, size: number) {
    this.#bootId = bootId.replaceAll("-", "").slice(0, 12);
    this.#size = size;
  }

  get clients(): number {
    return this.#clients.size;
  }

  /**
   * Follows the ledger until the returned function is called. Two generations that share one hear it once. Nothing is
   * heard, and no request costs anything, while nobody reads the feed.
   */
  follow(ledger: Ledger): () => void {
    const source = this.#sources.get(ledger) ?? { users: 0, stop: undefined };
    this.#sources.set(ledger, source);
    source.users++;
    if (this.#isListening) source.stop ??= this.#watch(ledger);
    return () => {
      if (--source.users > 0) return;
      this.#sources.delete(ledger);
      source.stop?.();
    };
  }
  #watch(ledger: Ledger): () => void {
    return ledger.watch((event) => this.#heard(event));
  }
  #listen(): void {
    clearTimeout(this.#leaving);
    if (this.#isListening) return;
    this.#isListening = true;
    // Who was here before has missed what happened meanwhile: a number that nobody has tells them so.
    this.#ring.length = 0;
    this.#last++;
    for (const [ledger, source] of this.#sources) source.stop = this.#watch(ledger);
  }
  #left(client: Client): void {
    this.#clients.delete(client);
    if (this.#clients.size > 0) return;
    clearTimeout(this.#leaving);
    this.#leaving = setTimeout(() => {
      this.#isListening = false;
      for (const source of this.#sources.values()) {
        source.stop?.();
        source.stop = undefined;
      }
    }, RETURN_MS);
    this.#leaving.unref();
  }

  /** Sends what follows `lastId`, and whatever happens from now on. False: there are too many clients. */
  connect(response: ServerResponse, lastId: string | undefined, generation: number): boolean {
    if (this.#clients.size >= MAX_CLIENTS) return false;
    this.#listen();
    response.writeHead(200, {
      "Content-Type": "text/event-stream; charset=utf-8",
      "Cache-Control": "no-store",
      "X-Accel-Buffering": "no",
      "X-Content-Type-Options": "nosniff",
    });
    const client: Client = { response, generation, at: this.#last, isBehind: false };
    response.write("retry: 1000\n\n");
    this.#clients.add(client);
    response.on("close", () => this.#left(client));
    response.on("drain", () => {
      client.isBehind = false;
      this.#catchUp(client);
    });
    if (lastId !== undefined) {
      const known = this.#numberOf(lastId);
      // An id of another boot, or of nobody's: everything there is, after word that there may have been more.
      client.at = known ?? (this.#ring[0]?.number ?? this.#last + 1) - 1;
      if (known === undefined) this.#tellMissed(client);
      this.#catchUp(client);
    }
    return true;
  }

  /** Passes an alert on: a circuit that opened, a budget that is nearly spent. */
  alert(alert: Alert): void {
    this.#push("alert", alert);
  }
  /** A comment to every client, so that nobody on the way takes the connection for dead. */
  beat(): void {
    for (const client of this.#clients) if (!client.isBehind) this.#write(client, ": beat\n\n");
  }
  /** Ends the streams that hold a generation that has retired: their clients come back, and go on where they were. */
  retire(generation: number): void {
    for (const client of this.#clients) if (client.generation <= generation) client.response.end();
  }

  #heard(event: LedgerEvent): void {
    if (event.kind === "begin") this.#push("begin", beginOf(event.row));
    else this.#push("end", endOf(event.row));
  }
  #push(kind: FeedEvent["kind"], data: object): void {
    this.#ring.push({ number: ++this.#last, kind, data, text: undefined });
    if (this.#ring.length > this.#size) this.#ring.shift();
    for (const client of this.#clients) if (!client.isBehind) this.#catchUp(client);
  }
  #catchUp(client: Client): void {
    const first = this.#ring[0]?.number ?? this.#last + 1;
    if (client.at < first - 1) {
      this.#tellMissed(client);
      client.at = first - 1;
    }
    for (let number = client.at + 1; number <= this.#last && !client.isBehind; number++) {
      client.at = number;
      this.#write(client, this.#textOf(this.#ring[number - first]!));
    }
  }
  #tellMissed(client: Client): void {
    this.#write(client, "event: missed\ndata: {}\n\n");
  }
  #write(client: Client, text: string): void {
    client.response.write(text);
    if (client.response.writableLength > MAX_WAITING_BYTES) client.isBehind = true;
  }
  #textOf(event: FeedEvent): string {
    event.text ??= `id: ${this.#bootId}-${event.number}\nevent: ${event.kind}\ndata: ${JSON.stringify(event.data)}\n\n`;
    return event.text;
  }
  /** Of an event that is still there, or was and is followed by those that are; undefined for any other id. */
  #numberOf(id: string): number | undefined {
    const found = /^([0-9a-f]{1,12})-(\d{1,15})$/.exec(id);
    if (found === null || found[1] !== this.#bootId) return undefined;
    const number = Number(found[2]);
    return number <= this.#last ? number : undefined;
  }
}

function beginOf(row: LedgerBegin) {
  const { exchangeId, at, project, session, client, method, path, dialect, model, stream } = row;
  return {
    id: exchangeId,
    at,
    project,
    session,
    client,
    method,
    path: cut(path),
    dialect: dialect ?? null,
    model: model === undefined ? null : cut(model),
    stream,
  };
}

/** What an "end" event says. Nothing of the bodies: the ring must not hold them. */
function endOf(row: LedgerEnd) {
  const { begin, outcome, attempts } = row;
  const priced = attempts.filter(({ cost }) => cost !== undefined);
  const sum = (of: (usage: NonNullable<(typeof attempts)[number]["usage"]>) => number): number =>
    attempts.reduce((total, { usage }) => total + (usage === undefined ? 0 : of(usage)), 0);
  return {
    ...(begin === undefined ? { id: row.exchangeId, at: row.at } : beginOf(begin)),
    provider: row.provider ?? null,
    outcome: outcome.kind,
    status: outcome.status,
    origin: outcome.origin ?? null,
    code: outcome.code ?? null,
    error: row.error === undefined ? null : cut(row.error),
    cache: row.cache ?? null,
    promptCache: row.promptCache ?? null,
    durationMs: outcome.durationMs,
    firstByteMs: outcome.firstByteMs ?? null,
    bytesSent: outcome.bytesSent,
    attempts: attempts.length,
    inputTokens: sum(({ inputTokens }) => inputTokens),
    cacheReadTokens: sum(({ cacheReadTokens }) => cacheReadTokens),
    cacheWrite5mTokens: sum(({ cacheWrite5mTokens }) => cacheWrite5mTokens),
    cacheWrite1hTokens: sum(({ cacheWrite1hTokens }) => cacheWrite1hTokens),
    outputTokens: sum(({ outputTokens }) => outputTokens),
    reasoningTokens: sum(({ reasoningTokens }) => reasoningTokens),
    costUsd: priced.length === 0 ? null : usd(priced.reduce((total, { cost }) => total + cost!.total, 0)),
    estimated: attempts.some(({ estimated }) => estimated),
    unpriced: attempts.some(({ unpriced }) => unpriced !== undefined),
  };
}

function cut(text: string): string {
  return text.slice(0, MAX_TEXT);
}
