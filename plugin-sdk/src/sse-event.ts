/**
 * One server-sent event: read from bytes that stay as they are, or encoded anew. Rules: WHATWG HTML §9.2.5 "Parsing an
 * event stream" and §9.2.6 "Interpreting an event stream".
 */
export const LF = 10;
export const CR = 13;
const SPACE = 32;
const COLON = 58;

const LINE_BREAK = /\r\n|\r|\n/;

/** What one block says, after the field rules. `data` is null where the block has no data line. */
interface SseFields {
  readonly event: string;
  readonly data: string | null;
  readonly id: string | undefined;
  readonly retry: number | undefined;
  readonly comment: string | undefined;
}

const NO_FIELDS: SseFields = {
  event: "message",
  data: null,
  id: undefined,
  retry: undefined,
  comment: undefined,
};

/**
 * One block of an event stream: the bytes up to and including the blank line that ends it. Fields are parsed once,
 * on first use, so an event that nobody looks at costs no decoding.
 */
export class SseEvent {
  /** The exact bytes, blank line included. May be a view of the chunk it came in: never write to it. */
  readonly raw: Buffer;
  /** True for a piece of a block longer than the splitter's limit: bytes to pass on, with no fields. */
  readonly oversize: boolean;
  private readonly textStart: number;
  private fields: SseFields | undefined;
  private parsed: unknown;
  private isParsed = false;

  /** `textStart` is the length of a byte order mark at the start of `raw`, which only a stream's first block may have. */
  constructor(raw: Buffer, textStart = 0, oversize = false) {
    this.raw = raw;
    this.oversize = oversize;
    this.textStart = textStart;
  }

  /** The event's type; "message" where it names none. */
  get event(): string {
    return this.read().event;
  }

  /** The data lines joined by LF; "" where there is none (see `hasData`). */
  get data(): string {
    return this.read().data ?? "";
  }

  /** Whether the block has a data line at all, that is, whether a browser would dispatch it. */
  get hasData(): boolean {
    return this.read().data !== null;
  }

  /** The block's own `id`, not the stream's last event id. */
  get id(): string | undefined {
    return this.read().id;
  }

  /** Reconnection time in milliseconds. */
  get retry(): number | undefined {
    return this.read().retry;
  }

  /** The comment lines joined by LF, of a block that consists of comments only (a keep-alive); else undefined. */
  get comment(): string | undefined {
    return this.read().comment;
  }

  /** `data` as JSON, parsed once and shared by all readers, who must not change it; undefined where it is not JSON. */
  json(): unknown {
    if (!this.isParsed) {
      this.isParsed = true;
      const data = this.read().data;
      if (data) {
        try {
          this.parsed = JSON.parse(data);
        } catch {
          this.parsed = undefined;
        }
      }
    }
    return this.parsed;
  }

  /**
   * The block's bytes with `data` in place of its own data: all other lines, their order, line endings and the spelling
   * of the data lines stay. Returns `raw` itself when nothing changes. A block without data lines gets them before its
   * blank line. Throws TypeError on an oversize piece.
   */
  withData(data: string): Buffer {
    if (this.oversize) throw new TypeError("an oversize piece of an event has no data to replace");
    if (this.hasData && this.data === data) return this.raw;
    const { raw } = this;
    const lines = rawLines(raw, this.textStart);
    const values = data.split(LINE_BREAK);
    const pieces: (Buffer | string)[] = [raw.subarray(0, this.textStart)];
    // The last data line is always written and takes what the earlier ones do not hold: a line dropped right before the
    // blank line could leave CR next to the blank line's LF, which together would read as one line end.
    const last = lines.findLast((line) => line.isData);
    const beforeBlank = lines.at(-2) ?? lines.at(-1)!;
    let next = 0;
    for (const line of lines) {
      if (last === undefined && line === lines.at(-1)) {
        for (const value of values) pieces.push(`data: ${value}${endingOf(raw, beforeBlank)}`);
      }
      if (!line.isData) {
        pieces.push(raw.subarray(line.start, line.end));
        continue;
      }
      const until = line === last ? values.length : Math.min(next + 1, values.length - 1);
      for (; next < until; next++) pieces.push(dataLine(raw, line, values[next]!));
    }
    return joinPieces(pieces);
  }

  private read(): SseFields {
    this.fields ??= this.oversize ? NO_FIELDS : parseBlock(this.raw, this.textStart);
    return this.fields;
  }
}

function parseBlock(raw: Buffer, textStart: number): SseFields {
  const text = raw.toString("utf8", textStart);
  const lines = text.includes("\r") ? text.split(LINE_BREAK) : text.split("\n");
  let event = "";
  let data: string | null = null;
  let dataLines: string[] | undefined;
  let id: string | undefined;
  let retry: number | undefined;
  let comments: string[] | undefined;
  let onlyComments = true;
  for (const line of lines) {
    if (line === "") continue;
    const colon = line.indexOf(":");
    if (colon === 0) {
      comments ??= [];
      comments.push(line.slice(line.charCodeAt(1) === SPACE ? 2 : 1));
      continue;
    }
    onlyComments = false;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line.charCodeAt(colon + 1) === SPACE ? colon + 2 : colon + 1);
    if (name === "data") {
      if (data === null) data = value;
      else {
        dataLines ??= [data];
        dataLines.push(value);
      }
    } else if (name === "event") event = value;
    else if (name === "id") id = value.includes("\0") ? id : value;
    else if (name === "retry") retry = /^[0-9]+$/.test(value) ? Number(value) : retry;
  }
  return {
    event: event === "" ? "message" : event,
    data: dataLines === undefined ? data : dataLines.join("\n"),
    id,
    retry,
    comment: onlyComments && comments !== undefined ? comments.join("\n") : undefined,
  };
}

interface RawLine {
  readonly start: number;
  /** Where the line's text ends and its CR, LF or CRLF begins. */
  readonly textEnd: number;
  readonly end: number;
  readonly isData: boolean;
}

function rawLines(raw: Buffer, from: number): RawLine[] {
  const lines: RawLine[] = [];
  let start = from;
  for (let pos = from; pos < raw.length; ) {
    const byte = raw[pos++];
    if (byte !== LF && byte !== CR) continue;
    const textEnd = pos - 1;
    if (byte === CR && raw[pos] === LF) pos++;
    lines.push({ start, textEnd, end: pos, isData: isDataLine(raw, start, textEnd) });
    start = pos;
  }
  return lines;
}

function isDataLine(raw: Buffer, start: number, textEnd: number): boolean {
  const nameEnd = start + 4;
  if (textEnd < nameEnd || raw.toString("latin1", start, nameEnd) !== "data") return false;
  return textEnd === nameEnd || raw[nameEnd] === COLON;
}

function endingOf(raw: Buffer, line: RawLine): string {
  return raw.toString("latin1", line.textEnd, line.end);
}

/** A data line that says `value`, spelled as `line` is: with a space after the colon or without. */
function dataLine(raw: Buffer, line: RawLine, value: string): string {
  // A reader drops one space after the colon, so a value that begins with one needs another before it.
  const isTight = raw[line.start + 4] === COLON && raw[line.start + 5] !== SPACE && !value.startsWith(" ");
  return `${isTight ? "data:" : "data: "}${value}${endingOf(raw, line)}`;
}

function joinPieces(pieces: readonly (Buffer | string)[]): Buffer {
  return Buffer.concat(pieces.map((piece) => (typeof piece === "string" ? Buffer.from(piece) : piece)));
}

/** What `encodeSse` writes; a field that is absent is not written. */
export interface SseFieldsToEncode {
  readonly event?: string;
  readonly data?: string;
  readonly id?: string;
  readonly retry?: number;
  readonly comment?: string;
}

/**
 * The bytes of one event, with LF line ends and the blank line. Data and comment may have several lines (a CR or CRLF in
 * them becomes LF: the format has no other way to say it). Throws TypeError where a value would alter other fields:
 * a line break in `event` or `id`, NUL in `id`, a `retry` that is not a whole number of milliseconds.
 */
export function encodeSse(fields: SseFieldsToEncode): Buffer {
  const { event, data, id, retry, comment } = fields;
  let text = "";
  if (comment !== undefined) for (const line of comment.split(LINE_BREAK)) text += `: ${line}\n`;
  if (event !== undefined) text += `event: ${singleLine("event", event)}\n`;
  if (id !== undefined) {
    if (id.includes("\0"))
      throw new TypeError("an event's id must not contain NUL: readers ignore such an id");
    text += `id: ${singleLine("id", id)}\n`;
  }
  if (retry !== undefined) {
    if (!Number.isSafeInteger(retry) || retry < 0) {
      throw new TypeError(`an event's retry must be a whole number of milliseconds, not ${retry}`);
    }
    text += `retry: ${retry}\n`;
  }
  if (data !== undefined) for (const line of data.split(LINE_BREAK)) text += `data: ${line}\n`;
  return Buffer.from(`${text}\n`);
}

function singleLine(name: string, value: string): string {
  if (/[\r\n]/.test(value))
    throw new TypeError(`an event's ${name} must not contain a line break: ${JSON.stringify(value)}`);
  return value;
}
