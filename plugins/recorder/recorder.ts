import {
  type Attempt,
  AttemptBill,
  type AttemptResult,
  addSaving,
  type Exchange,
  type Ledger,
  type LedgerAttempt,
  type LedgerBegin,
  type LedgerBill,
  type LedgerBodies,
  type LedgerEnd,
  type LedgerTiming,
  type Outcome,
  promptCacheOf,
  type RawHeaders,
  type Reply,
  type Slot,
  savingsOf,
  sentModel,
  slot,
} from "@tokenman/plugin-sdk";
import type { Biller } from "./bill.ts";
import { BodyCopy } from "./body-copy.ts";
import { OutputSample } from "./output-sample.ts";
import { redacted, redactedBytes } from "./redact.ts";

/** How much of an error reply is read for the words in it. */
const ERROR_BYTES = 16 * 1024;
const MAX_CLIENT = 80;
const MAX_TIMINGS = 200;

/** What is kept of an exchange until it ends. */
class Recording {
  begin: LedgerBegin | undefined;
  mark: number | undefined;
  readonly timings: LedgerTiming[] = [];
  cache: LedgerEnd["cache"];
  error: BodyCopy | undefined;
  body: BodyCopy | undefined;
  /** The attempt whose reply the client is given. */
  winner: Attempt | undefined;
  /** Its stream. */
  sample: OutputSample | undefined;
}
const Recorded: Slot<Recording> = slot<Recording>("recorder.recording");

export interface RecorderOptions {
  readonly ledger: Ledger;
  readonly biller: Biller;
  /** How much of each body is stored; 0 is nothing. */
  readonly bodyBytes: number;
}

/** The taps that turn an exchange into rows. */
export class Recorder {
  readonly #ledger: Ledger;
  readonly #biller: Biller;
  readonly #bodyBytes: number;

  constructor({ ledger, biller, bodyBytes }: RecorderOptions) {
    this.#ledger = ledger;
    this.#biller = biller;
    this.#bodyBytes = bodyBytes;
  }

  /** The first tap: the row is queued before anything is sent. */
  readonly request = (exchange: Exchange): void => {
    if (exchange.dialect?.generates === true) exchange.trackUsage();
    this.#begin(exchange);
  };
  readonly tapped = (
    plugin: string,
    hook: LedgerTiming["hook"],
    exchange: Exchange,
    durationMs: number,
  ): void => {
    const { timings } = recordingOf(exchange);
    if (timings.length < MAX_TIMINGS) timings.push({ plugin, hook, durationMs });
  };

  /** The last to see the reply's head, as what is first in the order of requests. */
  readonly response = (reply: Reply, exchange: Exchange): void => {
    const recording = recordingOf(exchange);
    recording.cache = cacheOf(reply.headers);
    const { dialect } = exchange;
    recording.winner = reply.attempt;
    if (reply.origin === "provider" && reply.status >= 400) {
      recording.error = new BodyCopy(ERROR_BYTES);
      reply.observe({ data: recording.error.data });
    } else if (reply.attempt !== undefined && reply.streaming && dialect?.outputText !== undefined) {
      recording.sample = new OutputSample(dialect);
      reply.observe({ data: recording.sample.data });
    }
    if (this.#bodyBytes > 0 && dialect !== undefined) {
      recording.body = new BodyCopy(this.#bodyBytes);
      reply.observe({ data: recording.body.data });
    }
  };

  readonly settled = (exchange: Exchange, outcome: Outcome): void | Promise<void> => {
    // Refused before the request hook ran: too large, or on its way out.
    const recording = this.#begin(exchange);
    const { attempts } = exchange;
    const bills: LedgerBill[] = [];
    for (let index = 0; index < attempts.length; index++) {
      const bill = this.#bill(exchange, attempts[index]!, recording);
      if (bill instanceof Promise) return this.#endLater(exchange, outcome, recording, bills, bill);
      bills.push(bill);
    }
    this.#end(exchange, outcome, recording, bills);
  };

  /** The first bills are known, the next one is not yet. */
  async #endLater(
    exchange: Exchange,
    outcome: Outcome,
    recording: Recording,
    known: readonly LedgerBill[],
    next: Promise<LedgerBill>,
  ): Promise<void> {
    const rest = exchange.attempts
      .slice(known.length + 1)
      .map((attempt) => this.#bill(exchange, attempt, recording));
    this.#end(exchange, outcome, recording, [...known, ...(await Promise.all([next, ...rest]))]);
  }
  #begin(exchange: Exchange): Recording {
    const recording = recordingOf(exchange);
    if (recording.begin === undefined) {
      recording.begin = beginOf(exchange);
      recording.mark = this.#ledger.begin(recording.begin);
    }
    return recording;
  }
  #bill(exchange: Exchange, attempt: Attempt, recording: Recording): LedgerBill | Promise<LedgerBill> {
    const { winner } = recording;
    const output = winner === attempt ? recording.sample : undefined;
    const bill = this.#biller.bill(exchange, attempt, output, winner);
    if (bill instanceof Promise) return bill.then((known) => keep(attempt, output, known));
    return keep(attempt, output, bill);
  }
  #end(exchange: Exchange, outcome: Outcome, recording: Recording, bills: readonly LedgerBill[]): void {
    const { attempts } = exchange;
    const rows: LedgerAttempt[] = [];
    let answering: Attempt | undefined;
    for (let index = 0; index < attempts.length; index++) {
      const attempt = attempts[index]!;
      const bill = bills[index]!;
      const saving = this.#biller.providerCacheSaving(exchange, attempt, bill);
      if (saving !== undefined) addSaving(exchange, saving);
      rows.push(attemptOf(exchange, attempt, bill));
      if (attempt.result?.kind === "reply") answering = attempt;
    }
    const { begin, mark, cache, timings, body } = recording;
    const { message } = outcome;
    const error = errorOf(exchange, outcome, answering, recording.error);
    this.#ledger.end({
      exchangeId: exchange.id,
      mark,
      begin,
      at: Date.now(),
      outcome: message === undefined ? outcome : { ...outcome, message: redacted(exchange, message) },
      provider: (answering ?? attempts.at(-1))?.provider.name,
      cache,
      promptCache: promptCacheOf(exchange),
      attempts: rows,
      savings: savingsOf(exchange),
      timings,
      bodies: bodiesOf(exchange, body, this.#bodyBytes),
      error: error === undefined ? undefined : redacted(exchange, error),
    });
  }
}

function keep(attempt: Attempt, output: OutputSample | undefined, bill: LedgerBill): LedgerBill {
  output?.drop();
  attempt.set(AttemptBill, bill);
  return bill;
}

function recordingOf(exchange: Exchange): Recording {
  let recording = exchange.get(Recorded);
  if (recording === undefined) {
    recording = new Recording();
    exchange.set(Recorded, recording);
  }
  return recording;
}

function beginOf(exchange: Exchange): LedgerBegin {
  const { request, dialect } = exchange;
  const description = dialect?.generates === true ? exchange.description : undefined;
  return {
    exchangeId: exchange.id,
    at: exchange.startedAt,
    project: exchange.project,
    session: dialect?.generates === true ? exchange.session : "",
    client: (request.header("user-agent") ?? "").slice(0, MAX_CLIENT),
    method: request.method,
    path: pathOf(request.path),
    dialect: dialect?.name,
    model: description?.model,
    stream: description?.stream ?? false,
  };
}

const MAX_PATHS = 500;
const paths = new Map<string, string>();

/** Without the query, which some clients put their key into, and without ids, of which there is no end. */
function pathOf(path: string): string {
  const known = paths.get(path);
  if (known !== undefined) return known;
  const short = shortened(path);
  // Those with a query or an id may never come again.
  if (short !== path) return short;
  if (paths.size >= MAX_PATHS) paths.clear();
  paths.set(path, path);
  return path;
}
function shortened(path: string): string {
  return path.replace(/\?.*/s, "").replace(/\/(?=[^/]{0,200}\d)[^/]{12,}/g, "/:id");
}

function attemptOf(exchange: Exchange, attempt: Attempt, bill: LedgerBill): LedgerAttempt {
  const { result = CANCELLED } = attempt;
  return {
    number: attempt.number,
    at: attempt.startedAt,
    provider: attempt.provider.name,
    model: sentModel(exchange, attempt),
    result: result.kind === "error" ? { ...result, message: redacted(exchange, result.message) } : result,
    headMs: attempt.headMs,
    firstByteMs: attempt.firstByteMs,
    durationMs: attempt.durationMs,
    usage: bill.usage,
    cost: bill.cost,
    estimated: bill.estimated,
    unpriced: bill.unpriced,
  };
}
const CANCELLED: AttemptResult = Object.freeze({ kind: "cancelled" });

/** What went wrong, in the words of whoever said it. `answering` is the last attempt that had a reply. */
function errorOf(
  { dialect }: Exchange,
  outcome: Outcome,
  answering: Attempt | undefined,
  reply: BodyCopy | undefined,
): string | undefined {
  const streamError = answering?.streamError;
  if (
    outcome.code === undefined &&
    outcome.message === undefined &&
    reply === undefined &&
    streamError === undefined
  )
    return undefined;
  const said: (string | undefined)[] = [outcome.code, outcome.message];
  if (streamError !== undefined) said.push(streamError.type, streamError.message);
  if (reply !== undefined) {
    const body = reply.bytes();
    const verdict = dialect?.judgeError(outcome.status, answering?.replyHeaders ?? [], body);
    const words = [verdict?.type, verdict?.code, verdict?.message].filter((word) => word !== undefined);
    said.push(...(words.length > 0 ? words : [body.toString("utf8", 0, 300)]));
  }
  const words = new Set(said.filter((word) => word !== undefined && word !== ""));
  return words.size === 0 ? undefined : [...words].join(": ");
}

function bodiesOf(
  exchange: Exchange,
  reply: BodyCopy | undefined,
  maxBytes: number,
): LedgerBodies | undefined {
  if (maxBytes === 0 || exchange.dialect === undefined) return undefined;
  const { body } = exchange.request;
  return {
    request: body === undefined ? undefined : redactedBytes(exchange, body.subarray(0, maxBytes)),
    response: reply === undefined ? undefined : redactedBytes(exchange, reply.bytes()),
    truncated: (body?.length ?? 0) > maxBytes || reply?.isTruncated === true,
  };
}

const SAID = "x-tokenman-cache";

/** What a response cache said of the request. Replies have many headers and most of them not this one. */
function cacheOf(headers: RawHeaders): LedgerEnd["cache"] {
  for (let index = 0; index < headers.length; index += 2) {
    const name = headers[index]!;
    if (name.length !== SAID.length || name.toLowerCase() !== SAID) continue;
    const value = headers[index + 1]!.toUpperCase();
    if (value === "HIT" || value === "MISS" || value === "BYPASS" || value === "COALESCED") return value;
  }
  return undefined;
}
