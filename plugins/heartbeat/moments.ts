/** How far from the clock here a time may be that the client calls the present one. */
const SKEW_MS = 120_000;

/** 2026-11-24T10:00:00.123Z and its like; Tue, 24 Nov 2026 10:00:00 GMT; seconds or milliseconds since 1970; a UUID. */
const CANDIDATE =
  /\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?|\b[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\b|\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b|\b\d{10}(?:\d{3})?\b/g;

/**
 * A text with its present times and one-time ids taken out; undefined where it has none. A time counts where it is now, give
 * or take two minutes: any other is what the text is about. An id counts where it is nowhere else in the request: it then
 * refers to nothing the model could know.
 */
export function withoutMoments(text: string, body: string, nowMs: number): string | undefined {
  let found = false;
  const rest = text.replace(CANDIDATE, (candidate) => {
    const isMoment =
      candidate.length === 36 && candidate[8] === "-" ? isOnce(candidate, body) : isNow(candidate, nowMs);
    if (!isMoment) return candidate;
    found = true;
    return candidate.length === 36 ? "\0id\0" : "\0now\0";
  });
  return found ? rest : undefined;
}

function isOnce(id: string, body: string): boolean {
  const lower = body.toLowerCase();
  const wanted = id.toLowerCase();
  return lower.indexOf(wanted) === lower.lastIndexOf(wanted);
}

function isNow(text: string, nowMs: number): boolean {
  return timesOf(text).some((ms) => Math.abs(ms - nowMs) <= SKEW_MS);
}

/** What moments the text may mean: one without a zone is of here, or of Greenwich. */
function timesOf(text: string): number[] {
  if (/^\d+$/.test(text)) return [text.length === 10 ? Number(text) * 1_000 : Number(text)];
  const iso = text.replace(" ", "T").replace(",", ".");
  if (!/^\d{4}-/.test(text)) return [Date.parse(text)];
  return /(?:Z|[+-]\d\d:?\d\d)$/.test(iso.slice(16))
    ? [Date.parse(iso)]
    : [Date.parse(iso), Date.parse(`${iso}Z`)];
}
