import {
  type CostByKind,
  type LedgerAttempt,
  type LedgerRecord,
  type LedgerSummary,
  PROMPT_CACHE_RESULTS,
  z,
} from "@tokenman/plugin-sdk";
import { usd } from "./figures.ts";

const tokens = {
  inputTokens: z.number(),
  cacheReadTokens: z.number(),
  cacheWrite5mTokens: z.number(),
  cacheWrite1hTokens: z.number(),
  outputTokens: z.number(),
  reasoningTokens: z.number(),
};

const ms = () => z.number().nullable();
const text = () => z.string().nullable();

const summaryShape = {
  id: z.string(),
  at: z.number().describe("When it began, in milliseconds since 1970."),
  project: z.string(),
  session: z.string(),
  client: z.string(),
  method: z.string(),
  path: z.string(),
  dialect: text(),
  model: text().describe("As asked for."),
  sentModel: text().describe("As sent upstream."),
  provider: text(),
  stream: z.boolean(),
  outcome: z.enum(["open", "answered", "aborted", "partial", "refused", "failed", "interrupted"]),
  status: z.number().nullable(),
  origin: z.enum(["provider", "plugin", "kernel"]).nullable().describe("Who made the reply."),
  code: text(),
  error: text(),
  cache: z.enum(["HIT", "MISS", "BYPASS", "COALESCED"]).nullable(),
  promptCache: z
    .enum(PROMPT_CACHE_RESULTS)
    .nullable()
    .describe(
      "What the provider's prompt cache had of a turn: most of the turn before, nothing as it was the first, or little, and why.",
    ),
  durationMs: ms(),
  firstByteMs: ms(),
  bytesSent: z.number().nullable(),
  attempts: z.number(),
  ...tokens,
  costUsd: z.number().nullable().describe("Of the attempts with a known price; null where none has one."),
  estimated: z.boolean().describe("A part of the cost is TokenMan's estimate."),
  unpriced: z.boolean().describe("A part of the cost is not known."),
};

/** A request in a list. */
export const summary = z.strictObject(summaryShape);

const cost = z.strictObject({
  input: z.number(),
  cacheRead: z.number(),
  cacheWrite5m: z.number(),
  cacheWrite1h: z.number(),
  output: z.number(),
  serverTools: z.number(),
  total: z.number(),
});

const attempt = z.strictObject({
  number: z.number(),
  at: z.number(),
  provider: z.string(),
  model: text(),
  result: z.looseObject({ kind: z.enum(["reply", "skipped", "error", "cancelled"]) }),
  headMs: ms(),
  firstByteMs: ms(),
  durationMs: z.number(),
  usage: z
    .looseObject({ ...tokens, source: z.enum(["provider", "estimate"]) })
    .nullable()
    .describe("What the provider told, or an estimate."),
  costUsd: cost.nullable().describe("US dollars by kind; null where it is not known."),
  estimated: z.boolean(),
  unpriced: text().describe("Why the cost is not known."),
});

const body = z.strictObject({
  encoding: z.enum(["utf8", "base64"]),
  content: z.string(),
});

/** A request with all that is known of it. */
export const record = z.strictObject({
  ...summaryShape,
  tries: z.array(attempt),
  savings: z.array(
    z.strictObject({
      kind: z.enum(["response-cache", "provider-cache", "compression"]),
      plugin: z.string(),
      tokens: z.number(),
      usd: z.number().nullable(),
    }),
  ),
  timings: z.array(
    z.strictObject({
      plugin: z.string(),
      hook: z.enum(["request", "beforeUpstream", "response"]),
      durationMs: z.number(),
    }),
  ),
  bodies: z
    .strictObject({ request: body.nullable(), response: body.nullable(), truncated: z.boolean() })
    .nullable(),
});

export function summaryOf(row: LedgerSummary): z.input<typeof summary> {
  const { costNanoUsd, ...rest } = row;
  const { dialect, model, sentModel, provider, status, origin, code, error, cache, promptCache } = rest;
  return {
    ...rest,
    dialect: dialect ?? null,
    model: model ?? null,
    sentModel: sentModel ?? null,
    provider: provider ?? null,
    status: status ?? null,
    origin: origin ?? null,
    code: code ?? null,
    error: error ?? null,
    cache: cache ?? null,
    promptCache: promptCache ?? null,
    durationMs: rest.durationMs ?? null,
    firstByteMs: rest.firstByteMs ?? null,
    bytesSent: rest.bytesSent ?? null,
    costUsd: costNanoUsd === undefined ? null : usd(costNanoUsd),
  };
}

export function recordOf({ tries, savings, timings, bodies, ...row }: LedgerRecord): z.input<typeof record> {
  return {
    ...summaryOf(row),
    tries: tries.map(attemptOf),
    savings: savings.map(({ kind, plugin, tokens: saved, nanoUsd }) => ({
      kind,
      plugin,
      tokens: saved,
      usd: nanoUsd === undefined ? null : usd(nanoUsd),
    })),
    timings: timings.map(({ plugin, hook, durationMs }) => ({ plugin, hook, durationMs })),
    bodies:
      bodies === undefined
        ? null
        : {
            request: bodyOf(bodies.request),
            response: bodyOf(bodies.response),
            truncated: bodies.truncated,
          },
  };
}

function attemptOf(row: LedgerAttempt): z.input<typeof attempt> {
  return {
    number: row.number,
    at: row.at,
    provider: row.provider,
    model: row.model ?? null,
    result: row.result,
    headMs: row.headMs ?? null,
    firstByteMs: row.firstByteMs ?? null,
    durationMs: row.durationMs,
    usage: row.usage === undefined ? null : { ...row.usage },
    costUsd: row.cost === undefined ? null : costOf(row.cost),
    estimated: row.estimated,
    unpriced: row.unpriced ?? null,
  };
}

function costOf(nano: CostByKind): z.input<typeof cost> {
  return {
    input: usd(nano.input),
    cacheRead: usd(nano.cacheRead),
    cacheWrite5m: usd(nano.cacheWrite5m),
    cacheWrite1h: usd(nano.cacheWrite1h),
    output: usd(nano.output),
    serverTools: usd(nano.serverTools),
    total: usd(nano.total),
  };
}

function bodyOf(bytes: Buffer | undefined): z.input<typeof body> | null {
  if (bytes === undefined) return null;
  const content = bytes.toString("utf8");
  // Bytes that are no text would not come out as they went in.
  return bytes.equals(Buffer.from(content))
    ? { encoding: "utf8", content }
    : { encoding: "base64", content: bytes.toString("base64") };
}
