/**
 * Cutting a byte stream into server-sent events (WHATWG HTML §9.2.5). No byte is lost or changed, whatever arrives.
 */
import { CR, encodeSse, LF, SseEvent, type SseFieldsToEncode } from "./sse-event.ts";

export { encodeSse, SseEvent, type SseFieldsToEncode };

const DEFAULT_MAX_EVENT_BYTES = 32 * 1024 * 1024;
const NOTHING: Buffer = Buffer.alloc(0);

/** Where the splitter stands between two bytes. */
const AT_START = 0; // before the first byte of a block
const IN_LINE = 1; // in a line that has text
const AFTER_LF = 2; // at the start of a line, the one before having ended in LF or CRLF
const AFTER_CR = 3; // behind a CR that ended a line with text; an LF would still belong to it
const AFTER_BLANK_CR = 4; // behind the CR of a blank line; an LF would still belong to it

/** Called with each block as soon as it is complete. What it throws leaves the splitter unusable. */
export type SseSink = (event: SseEvent) => void;

/**
 * Cuts a byte stream into the blocks of an event stream, whatever the chunking. The `raw` of all events and the
 * remainder that `flush` returns, one after the other, are the input, byte for byte. The cost is linear in the input:
 * a block within one chunk is a view of it, a block over several chunks is gathered in a doubling buffer.
 *
 * Where blocks end depends on the bytes alone. A blank line's CR waits for the byte behind it, which may be the LF of a
 * CRLF, unless the line before it ended in a lone CR: then CR is this stream's line end, and waiting would hold each
 * event back until the next one. A blank line outside a block is a block without fields.
 */
export class SseSplitter {
  private readonly maxEventBytes: number;
  private state = AT_START;
  private isFirst = true;
  private isOversize = false;
  private held = NOTHING;
  private heldBytes = 0;

  /** `maxEventBytes` (default 32 MiB) bounds what is held back: a longer block leaves in pieces marked `oversize`. */
  constructor(options: { readonly maxEventBytes?: number } = {}) {
    this.maxEventBytes = options.maxEventBytes ?? DEFAULT_MAX_EVENT_BYTES;
  }

  /** Takes the next bytes and hands every block that they complete to `out`, in order, before it returns. */
  push(chunk: Buffer, out: SseSink): void {
    const { length } = chunk;
    let state = this.state;
    let from = 0;
    let pos = 0;
    // The next line ends at or behind `pos`, looked up only when passed, so that a stream without one of them stays linear.
    let nextLf = -1;
    let nextCr = -1;
    while (pos < length) {
      if (state === IN_LINE) {
        if (nextLf < pos) nextLf = indexOrEnd(chunk, LF, pos);
        if (nextCr < pos) nextCr = indexOrEnd(chunk, CR, pos);
        if (nextLf < nextCr) {
          state = AFTER_LF;
          pos = nextLf + 1;
        } else if (nextCr < length) {
          state = AFTER_CR;
          pos = nextCr + 1;
        } else {
          pos = length;
        }
        continue;
      }
      const byte = chunk[pos]!;
      if (state === AFTER_BLANK_CR) {
        if (byte === LF) pos++;
      } else if (byte === LF) {
        pos++;
        if (state === AFTER_CR) {
          state = AFTER_LF;
          continue;
        }
      } else if (byte === CR) {
        pos++;
        if (state !== AFTER_CR) {
          state = AFTER_BLANK_CR;
          continue;
        }
      } else {
        state = IN_LINE;
        continue;
      }
      state = AT_START;
      this.complete(chunk, from, pos, out);
      from = pos;
    }
    this.state = state;
    if (from < length) this.hold(chunk, from, out);
  }

  /**
   * Ends the stream: a block that only waited for a possible LF goes to `out`; the bytes of a block that never got
   * its blank line are returned (a reader ignores them), null when there are none. The splitter is then as new.
   */
  flush(out: SseSink): Buffer | null {
    if (this.state === AFTER_BLANK_CR) this.complete(this.held, 0, 0, out);
    const rest = this.heldBytes > 0 ? this.held.subarray(0, this.heldBytes) : null;
    this.state = AT_START;
    this.isFirst = true;
    this.isOversize = false;
    this.release();
    return rest;
  }

  private complete(chunk: Buffer, from: number, to: number, out: SseSink): void {
    const wasOversize = this.isOversize;
    this.isOversize = false;
    let raw: Buffer;
    if (this.heldBytes === 0) {
      raw = chunk.subarray(from, to);
    } else {
      this.append(chunk, from, to);
      raw = this.held.subarray(0, this.heldBytes);
      this.release();
    }
    if (wasOversize || raw.length > this.maxEventBytes) this.emitPiece(raw, out);
    else this.emit(raw, out);
  }

  private emit(raw: Buffer, out: SseSink): void {
    const hasMark = this.isFirst && raw[0] === 0xef && raw[1] === 0xbb && raw[2] === 0xbf;
    this.isFirst = false;
    out(new SseEvent(raw, hasMark ? 3 : 0));
  }

  private emitPiece(raw: Buffer, out: SseSink): void {
    this.isFirst = false;
    if (raw.length > 0) out(new SseEvent(raw, 0, true));
  }

  private hold(chunk: Buffer, from: number, out: SseSink): void {
    const bytes = chunk.length - from;
    if (!this.isOversize && this.heldBytes + bytes <= this.maxEventBytes) {
      this.append(chunk, from, chunk.length);
      return;
    }
    this.isOversize = true;
    if (this.heldBytes > 0) {
      const head = this.held.subarray(0, this.heldBytes);
      this.release();
      this.emitPiece(head, out);
    }
    this.emitPiece(chunk.subarray(from), out);
  }

  private append(chunk: Buffer, from: number, to: number): void {
    const bytes = this.heldBytes + to - from;
    if (bytes > this.held.length) {
      const grown = Buffer.allocUnsafe(Math.max(bytes, 2 * this.held.length, 256));
      this.held.copy(grown, 0, 0, this.heldBytes);
      this.held = grown;
    }
    chunk.copy(this.held, this.heldBytes, from, to);
    this.heldBytes = bytes;
  }

  /** The buffer now belongs to the event made from it. */
  private release(): void {
    this.held = NOTHING;
    this.heldBytes = 0;
  }
}

function indexOrEnd(chunk: Buffer, byte: number, from: number): number {
  const at = chunk.indexOf(byte, from);
  return at < 0 ? chunk.length : at;
}
