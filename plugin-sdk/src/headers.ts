/**
 * Header lists as they stand on the wire: name, value, name, value …, with the case, order and duplicates that the
 * sender chose. Functions here never change their input.
 */
export type RawHeaders = readonly string[];

/**
 * Fields that belong to one connection and are each hop's own (RFC 9110 §7.6.1), with the proxy credentials
 * that belong to one hop too (§11.7). `Trailer` is not among them: trailers are relayed, so is their announcement.
 */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "transfer-encoding",
  "upgrade",
]);

const NO_NAMES: ReadonlySet<string> = new Set();

/** Whether `name`, in any case, is `lower`, which is in lower case. ASCII only, as field names are. */
function sameName(name: string, lower: string): boolean {
  if (name.length !== lower.length) return false;
  if (name === lower) return true;
  for (let i = 0; i < lower.length; i++) {
    const code = name.charCodeAt(i);
    const folded = code >= 65 && code <= 90 ? code + 32 : code;
    if (folded !== lower.charCodeAt(i)) return false;
  }
  return true;
}

/** The value of the first header called `name` (any case), or undefined. */
export function headerValue(headers: RawHeaders, name: string): string | undefined {
  const lower = name.toLowerCase();
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (sameName(headers[i]!, lower)) return headers[i + 1];
  }
  return undefined;
}

/** The values of all headers called `name` (any case), in wire order. */
export function headerValues(headers: RawHeaders, name: string): string[] {
  const lower = name.toLowerCase();
  const values: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (sameName(headers[i]!, lower)) values.push(headers[i + 1]!);
  }
  return values;
}

/**
 * A copy in which `name` has exactly one value. The first occurrence keeps its place and spelling, further ones go;
 * where there was none, the header is appended as spelled in `name`.
 */
export function withHeader(headers: RawHeaders, name: string, value: string): string[] {
  const lower = name.toLowerCase();
  const result: string[] = [];
  let written = false;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const found = headers[i]!;
    if (!sameName(found, lower)) {
      result.push(found, headers[i + 1]!);
    } else if (!written) {
      result.push(found, value);
      written = true;
    }
  }
  if (!written) result.push(name, value);
  return result;
}

/**
 * The headers less those in `names` (lower case). Returns `headers` itself when none of them occurs, so a caller
 * that only reads pays for no copy.
 */
export function withoutHeaders(headers: RawHeaders, names: ReadonlySet<string>): RawHeaders {
  if (names.size === 0) return headers;
  const lengths = lengthsOf(names);
  let kept: string[] | undefined;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i]!;
    if (((lengths >>> (name.length & 31)) & 1) === 1 && names.has(name.toLowerCase()))
      kept ??= headers.slice(0, i);
    else kept?.push(name, headers[i + 1]!);
  }
  return kept ?? headers;
}

const knownLengths = new WeakMap<ReadonlySet<string>, { readonly size: number; readonly lengths: number }>();

/** A bit for each length (modulo 32) that a name has: most headers are passed by without a copy in lower case. */
function lengthsOf(names: ReadonlySet<string>): number {
  const known = knownLengths.get(names);
  if (known !== undefined && known.size === names.size) return known.lengths;
  let lengths = 0;
  for (const name of names) lengths |= 1 << (name.length & 31);
  knownLengths.set(names, { size: names.size, lengths });
  return lengths;
}

/** Whether `name` (any case) is a field that ends at this hop, whatever `Connection` says. */
export function isHopByHop(name: string): boolean {
  return HOP_BY_HOP.has(name.toLowerCase());
}

/**
 * The field names that the message's `Connection` headers list, in lower case; an intermediary strips them too
 * (RFC 9110 §7.6.1). Options such as `close` are in the set as well: they name no field, so they strip nothing.
 */
export function connectionNamed(headers: RawHeaders): ReadonlySet<string> {
  let names: Set<string> | undefined;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (!sameName(headers[i]!, "connection")) continue;
    for (const option of headers[i + 1]!.split(",")) {
      const name = option.trim().toLowerCase();
      if (name !== "") {
        names ??= new Set();
        names.add(name);
      }
    }
  }
  return names ?? NO_NAMES;
}
