/**
 * The load generator, its own process (forked by main.ts): takes jobs over IPC, answers each with counts and
 * latencies. Every reply is verified, so that a wrong answer counts as a failure and not as speed.
 */
import { benchBody, writeNonce } from "./bodies.ts";
import { Histogram } from "./histogram.ts";
import type { LoadJob, LoadResult, LoopJob, Percentiles, SessionJob } from "./job.ts";
import {
  type BenchDialect,
  bufferedReply,
  modelFor,
  PATHS,
  type ReplySpec,
  streamedReply,
} from "./replies.ts";
import { anthropicRequest, openaiChatRequest, readSession, type SessionTurn } from "./session.ts";
import { Connection, type ReplySink } from "./wire.ts";

/** How long after the last request has started a reply may still come. */
const GRACE_MS = 15_000;

interface Outcome {
  job: LoadJob;
  expected: Buffer;
  completed: number;
  reasons: Map<string, number>;
  sentBytes: number;
  latency: Histogram;
  firstByte: Histogram;
}

/** Header fields of the size and number that the vendors' SDKs send. */
const SDK_HEADERS: Record<BenchDialect, string> = {
  openai: [
    "Authorization: Bearer sk-bench-0123456789abcdef0123456789abcdef",
    "User-Agent: OpenAI/JS 6.49.0",
    "X-Stainless-Lang: js",
    "X-Stainless-Package-Version: 6.49.0",
    "X-Stainless-OS: Linux",
    "X-Stainless-Arch: x64",
    "X-Stainless-Runtime: node",
    "X-Stainless-Runtime-Version: v26.10.0",
    "X-Stainless-Retry-Count: 0",
  ].join("\r\n"),
  anthropic: [
    "x-api-key: sk-ant-api03-bench-0123456789abcdef",
    "anthropic-version: 2023-06-01",
    "User-Agent: Anthropic/JS 1.12.0",
    "X-Stainless-Lang: js",
    "X-Stainless-Package-Version: 1.12.0",
    "X-Stainless-OS: Linux",
    "X-Stainless-Arch: x64",
    "X-Stainless-Runtime: node",
    "X-Stainless-Retry-Count: 0",
  ].join("\r\n"),
};

function requestBytes(job: LoadJob, body: Buffer): { bytes: Buffer; bodyAt: number } {
  const head = Buffer.from(
    [
      `POST ${PATHS[job.dialect]} HTTP/1.1`,
      `Host: 127.0.0.1:${job.port}`,
      "Accept: application/json",
      "Accept-Encoding: identity",
      "Content-Type: application/json",
      SDK_HEADERS[job.dialect],
      ...job.headers.map(([name, value]) => `${name}: ${value}`),
      `Content-Length: ${body.length}`,
      "\r\n",
    ].join("\r\n"),
  );
  return { bytes: Buffer.concat([head, body]), bodyAt: head.length };
}

function expectedReply(dialect: BenchDialect, spec: ReplySpec): Buffer {
  return spec.events === 0 ? bufferedReply(dialect) : Buffer.concat(streamedReply(dialect, spec.events));
}

/** Verifies one reply and books it; `next` is called when it is over, rightly or not. */
class Check implements ReplySink {
  readonly #outcome: Outcome;
  readonly #next: () => void;
  #start = 0;
  #first = 0;
  #status = 0;
  #received = 0;
  #same = true;
  #text: Buffer[] = [];

  constructor(outcome: Outcome, next: () => void) {
    this.#outcome = outcome;
    this.#next = next;
  }

  begin(): void {
    this.#first = 0;
    this.#status = 0;
    this.#received = 0;
    this.#same = true;
    this.#text = [];
    this.#start = performance.now();
  }

  head(status: number): void {
    this.#status = status;
  }

  body(chunk: Buffer, start: number, end: number): void {
    if (this.#first === 0) this.#first = performance.now();
    if (this.#outcome.job.verify === "content" || this.#status !== 200) {
      this.#text.push(chunk.subarray(start, end));
    } else if (this.#same) {
      const { expected } = this.#outcome;
      const until = this.#received + end - start;
      this.#same =
        until <= expected.length && expected.compare(chunk, start, end, this.#received, until) === 0;
    }
    this.#received += end - start;
  }

  done(): void {
    const now = performance.now();
    const wrong = this.#wrong();
    if (wrong !== undefined) {
      this.fail(wrong);
      return;
    }
    this.#outcome.completed++;
    this.#outcome.latency.record((now - this.#start) * 1_000);
    this.#outcome.firstByte.record((this.#first - this.#start) * 1_000);
    this.#next();
  }

  fail(reason: string): void {
    const { reasons } = this.#outcome;
    reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
    this.#next();
  }

  #wrong(): string | undefined {
    const { job, expected } = this.#outcome;
    if (this.#status !== 200) {
      const text = Buffer.concat(this.#text).toString("utf8").slice(0, 200);
      return `status ${this.#status}: ${text}`;
    }
    if (job.verify === "bytes") {
      if (this.#received !== expected.length) return `${this.#received} bytes instead of ${expected.length}`;
      return this.#same ? undefined : "bytes differ from the upstream's";
    }
    const text = Buffer.concat(this.#text).toString("utf8");
    const complete = text.includes('"completion_tokens"') || text.includes('"output_tokens"');
    const events = text.split("\n\n").length - 1;
    if (!complete) return "the usage is missing";
    return job.reply.events > 0 && events < job.reply.events
      ? `${events} events instead of ${job.reply.events}`
      : undefined;
  }
}

function newOutcome(job: LoadJob): Outcome {
  return {
    job,
    expected: expectedReply(job.dialect, job.reply),
    completed: 0,
    reasons: new Map(),
    sentBytes: 0,
    latency: new Histogram(),
    firstByte: new Histogram(),
  };
}

/** Starts at the wall clock so that no two jobs, and no two runs against one subject, send the same body. */
let nonce = Date.now() * 1_000;

async function runLoop(job: LoopJob, outcome: Outcome): Promise<number> {
  const body = benchBody(job.dialect, job.bodyBytes, job.reply);
  const started = performance.now();
  const deadline = started + job.maxMs;
  const open = new Set<Connection>();
  const hardStop = setTimeout(() => {
    for (const connection of open) connection.destroy();
  }, job.maxMs + GRACE_MS);
  let left = job.maxRequests;
  let lastReply = started;

  const oneConnection = (index: number): Promise<void> =>
    new Promise((resolve) => {
      const { bytes, bodyAt } = requestBytes(job, body.bytes);
      let connection: Connection | undefined;
      const check = new Check(outcome, () => {
        lastReply = performance.now();
        next();
      });
      const next = (): void => {
        if (left <= 0 || performance.now() >= deadline) {
          if (connection !== undefined) open.delete(connection);
          connection?.destroy();
          resolve();
          return;
        }
        left--;
        if (connection === undefined || !connection.reusable) {
          if (connection !== undefined) open.delete(connection);
          connection?.destroy();
          connection = new Connection(job.port);
          open.add(connection);
        }
        if (job.repeats !== true) writeNonce(bytes, bodyAt + body.nonceAt, nonce++);
        outcome.sentBytes += body.bytes.length;
        check.begin();
        connection.send(bytes, check);
      };
      const rampMs = ((job.rampMs ?? 0) * index) / job.concurrency;
      if (rampMs > 0) setTimeout(next, rampMs);
      else next();
    });

  await Promise.all(Array.from({ length: job.concurrency }, (_, index) => oneConnection(index)));
  clearTimeout(hardStop);
  return lastReply - started;
}

const sessions = new Map<string, SessionTurn[]>();

async function runSession(job: SessionJob, outcome: Outcome): Promise<number> {
  const turns = sessions.get(job.file) ?? readSession(job.file);
  sessions.set(job.file, turns);
  const build = job.dialect === "openai" ? openaiChatRequest : anthropicRequest;
  const options = { model: modelFor(job.reply), stream: job.reply.events > 0 };
  let connection = new Connection(job.port);
  let elapsedMs = 0;
  for (let n = job.from; n < job.to; n++) {
    const body = build(turns, n, options);
    const { bytes } = requestBytes(job, body);
    outcome.sentBytes += body.length;
    if (!connection.reusable) connection = new Connection(job.port);
    const started = performance.now();
    const stop = setTimeout(() => connection.destroy(), GRACE_MS);
    await new Promise<void>((resolve) => {
      const check = new Check(outcome, resolve);
      check.begin();
      connection.send(bytes, check);
    });
    clearTimeout(stop);
    elapsedMs += performance.now() - started;
  }
  connection.destroy();
  return elapsedMs;
}

function percentiles(histogram: Histogram): Percentiles {
  return {
    p50: histogram.percentile(50),
    p99: histogram.percentile(99),
    max: histogram.max,
    mean: histogram.mean,
  };
}

/** Runs one job to its end; it never rejects for what the subject does, it counts it. */
export async function runJob(job: LoadJob): Promise<LoadResult> {
  const outcome = newOutcome(job);
  const elapsedMs = job.kind === "loop" ? await runLoop(job, outcome) : await runSession(job, outcome);
  return {
    completed: outcome.completed,
    failed: [...outcome.reasons.values()].reduce((sum, count) => sum + count, 0),
    reasons: [...outcome.reasons].slice(0, 5).map(([reason, count]) => `${count}× ${reason}`),
    elapsedMs,
    sentBytes: outcome.sentBytes,
    latency: percentiles(outcome.latency),
    firstByte: percentiles(outcome.firstByte),
  };
}

if (process.send !== undefined && import.meta.main) {
  process.on("message", (job: LoadJob) => {
    runJob(job).then(
      (result) => process.send?.({ result }),
      (error: unknown) => process.send?.({ error: error instanceof Error ? error.message : String(error) }),
    );
  });
  process.on("disconnect", () => process.exit(0));
}
