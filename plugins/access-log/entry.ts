import { type Attempt, type Exchange, maskKeys, type Outcome } from "@tokenman/plugin-sdk";

/** Longest text taken from a client or provider. */
const MAX_TEXT = 300;

/** The facts of one exchange, in the order in which they stand in its line. Times are in milliseconds. */
export function entryOf(exchange: Exchange, outcome: Outcome): Readonly<Record<string, unknown>> {
  const { request, dialect, attempts } = exchange;
  // Of a request to a path without a model there is nothing to describe; the others' the router has read already.
  const description = dialect?.generates === true ? exchange.description : undefined;
  const last = attempts.findLast(({ result }) => result?.kind === "reply") ?? attempts.at(-1);
  const usage = last?.usage;
  return {
    id: exchange.id,
    project: exchange.project,
    method: shown(request.method),
    // Without the query, which some vendors' clients put their key into.
    path: shown(request.path.replace(/\?.*/s, "")),
    dialect: dialect?.name,
    model: shown(description?.model),
    stream: description?.stream,
    provider: last?.provider.name,
    status: outcome.status,
    outcome: outcome.kind,
    origin: outcome.origin,
    code: outcome.code,
    durationMs: round(outcome.durationMs),
    firstByteMs: round(outcome.firstByteMs),
    bytes: outcome.bytesSent,
    edited: exchange.edited || undefined,
    tokens:
      usage === undefined
        ? undefined
        : {
            source: usage.source,
            input: usage.inputTokens,
            cacheRead: usage.cacheReadTokens,
            cacheWrite: usage.cacheWrite5mTokens + usage.cacheWrite1hTokens,
            output: usage.outputTokens,
            complete: usage.complete,
          },
    attempts: attempts.map(attemptOf),
  };
}

function attemptOf({ provider, result, status, headMs }: Attempt): Readonly<Record<string, unknown>> {
  const said =
    result?.kind === "skipped"
      ? { skippedBy: result.by, reason: shown(result.reason) }
      : result?.kind === "error"
        ? { error: result.code, message: shown(result.message) }
        : { status, ...(result?.kind === "cancelled" && { cancelled: true }) };
  return { provider: provider.name, ...said, headMs: round(headMs) };
}

/** Few texts make up most lines; what was worked out for one is kept. */
const SHOWN = new Map<string, string>();
const MAX_SHOWN = 1_000;

/** A text as it may be written down: cut, and without what looks like a key. */
function shown(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const known = SHOWN.get(text);
  if (known !== undefined) return known;
  const cut = text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
  const clean = maskKeys(cut);
  // What is long has to be cut each time: it would be kept whole.
  if (cut !== text) return clean;
  if (SHOWN.size >= MAX_SHOWN) SHOWN.clear();
  SHOWN.set(text, clean);
  return clean;
}

function round(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.round(ms * 10) / 10;
}
