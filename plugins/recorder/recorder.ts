import {
  type Attempt,
  AttemptBill,
  addSaving,
  type Exchange,
  headerValue,
  type Ledger,
  type LedgerAttempt,
  type LedgerBegin,
  type LedgerBill,
  type LedgerBodies,
  type LedgerEnd,
  type LedgerTiming,
  type Outcome,
  type Reply,
  type Slot,
  savingsOf,
  slot,
} from "@tokenman/plugin-sdk";
import { type Biller, sentModel } from "./bill.ts";
import { BodyCopy } from "./body-copy.ts";
import { OutputSample } from "./output-sample.ts";
import { redactBytes, redactor } from "./redact.ts";

/** How much of an error reply is read for the words in it. */
const ERROR_BYTES = 16 * 1024;
const MAX_CLIENT = 80;
const MAX_TIMINGS = 200;

/** What is kept of an exchange until it ends. */
interface Recording {
  begin: LedgerBegin | undefined;
  readonly timings: LedgerTiming[];
  cache: LedgerEnd["cache"];
  error: BodyCopy | undefined;
  body: BodyCopy | undefined;
  sample: { readonly attempt: Attempt; readonly output: OutputSample } | undefined;
}
const Recorded: Slot<Recording> = slot<Recording>("recorder.recording");

interface Span {
  readonly from: number;
  to: number | undefined;
}
const Timed: Slot<Span> = slot<Span>("recorder.span");

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
  readonly beforeUpstream = (_exchange: Exchange, attempt: Attempt): void => {
    attempt.set(Timed, { from: performance.now(), to: undefined });
  };
  readonly attemptEnd = (_exchange: Exchange, attempt: Attempt): void => {
    const span = attempt.get(Timed);
    if (span !== undefined) span.to = performance.now();
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
    recording.cache = cacheOf(headerValue(reply.headers, "x-tokenman-cache"));
    const { dialect } = exchange;
    if (reply.origin === "provider" && reply.status >= 400) {
      recording.error = new BodyCopy(ERROR_BYTES);
      reply.observe({ data: recording.error.data });
    } else if (reply.attempt !== undefined && reply.streaming && dialect?.outputText !== undefined) {
      const output = new OutputSample(dialect);
      recording.sample = { attempt: reply.attempt, output };
      reply.observe({ event: output.event });
    }
    if (this.#bodyBytes > 0 && dialect !== undefined) {
      recording.body = new BodyCopy(this.#bodyBytes);
      reply.observe({ data: recording.body.data });
    }
  };

  readonly settled = (exchange: Exchange, outcome: Outcome): void | Promise<void> => {
    // Refused before the request hook ran: too large, or on its way out.
    this.#begin(exchange);
    const { attempts } = exchange;
    const bills: (LedgerBill | Promise<LedgerBill>)[] = [];
    let waits = false;
    for (const attempt of attempts) {
      const bill = this.#bill(exchange, attempt);
      bills.push(bill);
      waits ||= bill instanceof Promise;
    }
    if (waits) return Promise.all(bills).then((known) => this.#end(exchange, outcome, known));
    this.#end(exchange, outcome, bills as LedgerBill[]);
  };

  #begin(exchange: Exchange): void {
    const recording = recordingOf(exchange);
    if (recording.begin !== undefined) return;
    recording.begin = beginOf(exchange);
    this.#ledger.begin(recording.begin);
  }
  #bill(exchange: Exchange, attempt: Attempt): LedgerBill | Promise<LedgerBill> {
    const { sample } = recordingOf(exchange);
    const output = sample?.attempt === attempt ? sample.output : undefined;
    const keep = (bill: LedgerBill): LedgerBill => {
      output?.drop();
      attempt.set(AttemptBill, bill);
      return bill;
    };
    const bill = this.#biller.bill(exchange, attempt, output);
    return bill instanceof Promise ? bill.then(keep) : keep(bill);
  }
  #end(exchange: Exchange, outcome: Outcome, bills: readonly LedgerBill[]): void {
    const { attempts } = exchange;
    const recording = recordingOf(exchange);
    const redact = redactor(exchange);
    attempts.forEach((attempt, index) => {
      const saving = this.#biller.providerCacheSaving(exchange, attempt, bills[index]!);
      if (saving !== undefined) addSaving(exchange, saving);
    });
    const error = errorOf(exchange, outcome, recording.error);
    const { message } = outcome;
    this.#ledger.end({
      exchangeId: exchange.id,
      begin: recording.begin,
      at: Date.now(),
      outcome: message === undefined ? outcome : { ...outcome, message: redact(message) },
      provider: (attempts.findLast(({ result }) => result?.kind === "reply") ?? attempts.at(-1))?.provider
        .name,
      cache: recording.cache,
      attempts: attempts.map((attempt, index) => attemptOf(exchange, attempt, bills[index]!, redact)),
      savings: savingsOf(exchange),
      timings: recording.timings,
      bodies: bodiesOf(exchange, recording.body, this.#bodyBytes, redact),
      error: error === undefined ? undefined : redact(error),
    });
  }
}

function recordingOf(exchange: Exchange): Recording {
  let recording = exchange.get(Recorded);
  if (recording === undefined) {
    recording = {
      begin: undefined,
      timings: [],
      cache: undefined,
      error: undefined,
      body: undefined,
      sample: undefined,
    };
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

function attemptOf(
  exchange: Exchange,
  attempt: Attempt,
  bill: LedgerBill,
  redact: (text: string) => string,
): LedgerAttempt {
  const { result = { kind: "cancelled" } } = attempt;
  const span = attempt.get(Timed);
  return {
    number: attempt.number,
    at: attempt.startedAt,
    provider: attempt.provider.name,
    model: sentModel(exchange, attempt),
    result: result.kind === "error" ? { ...result, message: redact(result.message) } : result,
    headMs: attempt.headMs,
    firstByteMs: attempt.firstByteMs,
    durationMs: span === undefined ? 0 : (span.to ?? performance.now()) - span.from,
    usage: bill.usage,
    cost: bill.cost,
    estimated: bill.estimated,
    unpriced: bill.unpriced,
  };
}

/** What went wrong, in the words of whoever said it. */
function errorOf(exchange: Exchange, outcome: Outcome, reply: BodyCopy | undefined): string | undefined {
  const { dialect, attempts } = exchange;
  if (outcome.code === undefined && outcome.message === undefined && reply === undefined) {
    if (attempts.every(({ streamError }) => streamError === undefined)) return undefined;
  }
  const said: (string | undefined)[] = [outcome.code, outcome.message];
  const answering = attempts.findLast(({ result }) => result?.kind === "reply");
  const { streamError } = answering ?? {};
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
  redact: (text: string) => string,
): LedgerBodies | undefined {
  if (maxBytes === 0 || exchange.dialect === undefined) return undefined;
  const { body } = exchange.request;
  return {
    request: body === undefined ? undefined : redactBytes(body.subarray(0, maxBytes), redact),
    response: reply === undefined ? undefined : redactBytes(reply.bytes(), redact),
    truncated: (body?.length ?? 0) > maxBytes || reply?.isTruncated === true,
  };
}

function cacheOf(header: string | undefined): LedgerEnd["cache"] {
  const value = header?.toUpperCase();
  return value === "HIT" || value === "MISS" || value === "BYPASS" || value === "COALESCED"
    ? value
    : undefined;
}
