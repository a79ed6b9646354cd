import { Calendar, isTimeZone, nearest, parseDuration, TokenmanError, z } from "@tokenman/plugin-sdk";

const MAX_VALUE = 500;
const MAX_DAYS = 900;
const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;
/** The last moment that a Date can be. */
const MAX_MS = 8_640_000_000_000_000;

export type Parameters = z.ZodObject;

/** The parameters of a query, as the schema makes them. Throws TM_BAD_QUERY, which names all that is wrong. */
export function readQuery<S extends Parameters>(schema: S, query: URLSearchParams): z.output<S> {
  const known = Object.keys(schema.shape);
  const problems: string[] = [];
  const values: Record<string, string> = {};
  for (const name of new Set(query.keys())) {
    const all = query.getAll(name);
    if (!known.includes(name)) problems.push(unknown(name, known));
    else if (all.length > 1) problems.push(`${name}: given ${all.length} times`);
    else if (all[0]!.length > MAX_VALUE) problems.push(`${name}: longer than ${MAX_VALUE} characters`);
    else values[name] = all[0]!;
  }
  const parsed = schema.safeParse(values);
  if (!parsed.success)
    for (const { path, message } of parsed.error.issues) problems.push(`${path.join(".")}: ${message}`);
  if (problems.length > 0 || !parsed.success) throw badQuery(problems.join("; "));
  return parsed.data;
}

export function badQuery(message: string): TokenmanError {
  return new TokenmanError("TM_BAD_QUERY", message);
}

function unknown(name: string, known: readonly string[]): string {
  const near = nearest(name, known);
  const hint = known.length === 0 ? "this path takes none" : `known: ${known.join(", ")}`;
  return `${name.slice(0, 50)}: no such parameter; ${near === undefined ? hint : `did you mean ${near}?`}`;
}

/** A moment: an ISO date, milliseconds since 1970, or a duration before now. */
const moment = z.string().transform((text, ctx) => {
  const at = /^\d{11,16}$/.test(text) ? Number(text) : (before(text) ?? dateOf(text));
  if (at >= 0 && at <= MAX_MS) return at;
  ctx.addIssue(
    'expected a date ("2026-11-01", "2026-11-01T12:00:00Z"), a duration before now ("7d") or milliseconds since 1970',
  );
  return z.NEVER;
});

/** Date.parse takes all kinds of texts for dates: "-5" is one in 2001. */
function dateOf(text: string): number {
  return /^\d{4}-\d\d-\d\d(?:$|[T ])/.test(text) ? Date.parse(text) : Number.NaN;
}

function before(text: string): number | undefined {
  try {
    // A bare number would have to be in some unit: nobody could tell which.
    return /^[\d.]+$/.test(text) ? Number.NaN : Math.max(0, Date.now() - parseDuration(text));
  } catch {
    return undefined;
  }
}

/** A duration in milliseconds; `all` is the text that means no end, where one does. */
function duration(what: string, atLeastMs: number, all?: string) {
  return z.string().transform((text, ctx) => {
    if (text === all) return Number.POSITIVE_INFINITY;
    let ms = Number.NaN;
    try {
      if (!/^[\d.]+$/.test(text)) ms = parseDuration(text);
    } catch {
      // Said below.
    }
    if (ms >= atLeastMs && ms <= MAX_MS) return ms;
    ctx.addIssue(what);
    return z.NEVER;
  });
}

const range = duration(
  'expected a duration ("24h", "7d") of at least one minute, or "all"',
  MINUTE_MS,
  "all",
).describe('How far back from now: "1h", "24h", "7d", "all". Default: 24h.');

const named = {
  project: z.string().optional().describe("Of this project."),
  provider: z.string().optional().describe("Sent to this provider."),
  model: z.string().optional().describe("Of this model, as asked for or as sent."),
};

const times = {
  since: moment.optional().describe("From this moment on: a date, or a duration before now (7d)."),
  until: moment.optional().describe("Up to this moment, exclusive. Default: now."),
};

export const rangeParameters = { range: range.optional(), ...times };
export const savingParameters = { ...rangeParameters, project: named.project };
export const figureParameters = { ...rangeParameters, ...named };

export const historyParameters = {
  ...figureParameters,
  step: z
    .literal("day")
    .or(duration('expected "day", or a duration ("1h") of at least one minute', MINUTE_MS))
    .optional()
    .describe(
      'Length of a step: whole minutes within the last day, else whole hours; or "day", one of a time zone. Default: by the range.',
    ),
  zone: z
    .string()
    .refine(isTimeZone, "expected an IANA time zone such as Asia/Kathmandu")
    .optional()
    .describe('Whose days they are, with step "day". Default: UTC.'),
};

export const limit = z
  .string()
  .regex(/^[1-9]\d{0,3}$/, "expected a whole number from 1")
  .transform(Number)
  .optional();

export const groupParameters = {
  ...figureParameters,
  limit: limit.describe("How many, the dearest first: 1 to 1000. Default: 100."),
};

const OUTCOMES = ["open", "answered", "aborted", "partial", "refused", "failed", "interrupted"] as const;

export const requestParameters = {
  ...named,
  session: z.string().optional().describe("Of this session."),
  status: z
    .string()
    .regex(/^(?:[1-5]\d\d|[1-5]xx)$/i, 'expected a status ("429") or a class of them ("5xx")')
    .transform((text) => Number(/xx$/i.test(text) ? text[0] : text))
    .optional()
    .describe('A status ("429"), or a class of them ("5xx").'),
  outcome: z
    .enum(OUTCOMES, `expected one of ${OUTCOMES.join(", ")}`)
    .optional()
    .describe("How the request ended."),
  text: z.string().optional().describe("Words of the error's text; the last one may be a beginning."),
  ...times,
  limit: limit.describe("How many: 1 to 500. Default: 50."),
  cursor: z.string().optional().describe("`next` of the page before."),
};

export const eventParameters = {
  lastEventId: z.string().optional().describe("As the header Last-Event-ID, for who cannot send it."),
};

interface RangeQuery {
  readonly range?: number | undefined;
  readonly since?: number | undefined;
  readonly until?: number | undefined;
}

export interface Range {
  readonly from: number;
  readonly to: number;
}

/** Throws TM_BAD_QUERY for a range that is empty, or given twice. */
export function rangeOf({ range: back, since, until }: RangeQuery, now: number): Range {
  if (back !== undefined && since !== undefined) throw badQuery("range, since: give one of them");
  const to = until ?? now;
  const from = since ?? Math.max(0, to - (back ?? DAY_MS));
  if (from >= to) throw badQuery("since: it is not before until");
  return { from, to };
}

/**
 * The bounds of the days that a range touches, of a time zone: some have 23 hours, or 25, and some begin within an hour of
 * UTC. Throws TM_BAD_QUERY for more than 900.
 */
export function dayBounds({ from, to }: Range, zone: string): number[] {
  if (to - from > MAX_DAYS * DAY_MS) throw badQuery(`range: it has more than ${MAX_DAYS} days`);
  const calendar = new Calendar(zone);
  const bounds: number[] = [];
  let next = from;
  while (next < to) {
    const day = calendar.span("daily", next);
    bounds.push(day.from);
    next = day.to;
  }
  bounds.push(next);
  return bounds;
}

/** The step where none is asked for: so that there are some dozens of them, or a hundred. */
export function stepOf({ from, to }: Range, isNamed: boolean, now: number): number {
  const span = to - from;
  // The ledger has minutes for the last day only, and without names.
  const hasMinutes = !isNamed && from >= now - DAY_MS;
  if (hasMinutes && span <= 2 * HOUR_MS) return MINUTE_MS;
  if (hasMinutes) return 15 * MINUTE_MS;
  return span <= 4 * DAY_MS ? HOUR_MS : DAY_MS * Math.max(1, Math.ceil(span / DAY_MS / 1_000));
}
