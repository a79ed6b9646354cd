import { promisify } from "node:util";
import zlib from "node:zlib";

type ZlibStream = zlib.Gunzip | zlib.BrotliDecompress | zlib.ZstdDecompress | zlib.Inflate;

const DECODERS: Readonly<Record<string, () => ZlibStream>> = {
  gzip: () => zlib.createGunzip(),
  "x-gzip": () => zlib.createGunzip(),
  deflate: () => zlib.createInflate(),
  br: () => zlib.createBrotliDecompress(),
  zstd: () => zlib.createZstdDecompress(),
};

const WHOLE: Readonly<
  Record<string, (body: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>>
> = {
  gzip: promisify<Buffer, zlib.ZlibOptions, Buffer>(zlib.gunzip),
  "x-gzip": promisify<Buffer, zlib.ZlibOptions, Buffer>(zlib.gunzip),
  deflate: promisify<Buffer, zlib.ZlibOptions, Buffer>(zlib.inflate),
  br: promisify<Buffer, zlib.BrotliOptions, Buffer>(zlib.brotliDecompress),
  zstd: promisify<Buffer, zlib.ZstdOptions, Buffer>(zlib.zstdDecompress),
};

/** The content coding that a header names, or undefined for none ("identity", absent). */
export function contentCoding(header: string | undefined): string | undefined {
  if (header === undefined) return undefined;
  const coding = header.trim().toLowerCase();
  return coding === "" || coding === "identity" ? undefined : coding;
}

/** Whether {@link StreamDecoder} knows the coding. Lists of codings ("gzip, br") are not known. */
export function isKnownCoding(coding: string): boolean {
  return Object.hasOwn(DECODERS, coding);
}

/** Takes what a {@link StreamDecoder} decodes. `end` or `fail` comes last, and once. */
export interface DecoderSink {
  data(chunk: Buffer): void;
  /** There is room again after `write` returned false. */
  drain(): void;
  end(): void;
  /** The bytes are not of the coding, or stop in the middle of it. */
  fail(cause: Error): void;
}

/** Decodes a stream of one coding as it comes. */
export class StreamDecoder {
  readonly #stream: ZlibStream;
  readonly #sink: DecoderSink;
  /** The coding came to its own end; what follows it is no part of the content. */
  #complete = false;
  #began = false;
  #ending = false;
  #over = false;

  /** Throws TypeError for a coding that {@link isKnownCoding} does not know. */
  constructor(coding: string, sink: DecoderSink) {
    const make = Object.hasOwn(DECODERS, coding) ? DECODERS[coding] : undefined;
    if (make === undefined) throw new TypeError(`unknown content coding ${coding}`);
    this.#sink = sink;
    this.#stream = make();
    this.#stream.on("data", (chunk: Buffer) => {
      if (!this.#over) sink.data(chunk);
    });
    this.#stream.on("drain", () => {
      if (!this.#over) sink.drain();
    });
    this.#stream.on("end", () => {
      this.#complete = true;
      if (this.#ending) this.#finish();
    });
    this.#stream.on("error", (cause) => {
      if (this.#over) return;
      this.#over = true;
      sink.fail(cause);
    });
  }
  /** Bytes taken that are not decoded yet. */
  get backlogBytes(): number {
    return this.#stream.writableLength;
  }
  /** False asks to wait for `drain`. */
  write(chunk: Buffer): boolean {
    if (this.#complete || this.#over) return true;
    this.#began = true;
    return this.#stream.write(chunk);
  }
  /**
   * No more will come: `end` follows the last of the content, `fail` a coding that is not complete. A body of no bytes
   * (a 204, a reply to HEAD) is complete whatever its headers say.
   */
  end(): void {
    this.#ending = true;
    if (this.#complete || !this.#began) this.#finish();
    else this.#stream.end();
  }
  /** The rest will never come: calls back when all that can be decoded of what did come was handed on. */
  cut(done: () => void): void {
    if (this.#complete || this.#over || !this.#began) done();
    else this.#stream.flush(() => this.#whenRead(done));
  }
  pause(): void {
    this.#stream.pause();
  }
  resume(): void {
    this.#stream.resume();
  }
  destroy(): void {
    this.#over = true;
    this.#stream.destroy();
  }

  #whenRead(done: () => void): void {
    if (this.#over || this.#stream.readableLength === 0) done();
    else this.#stream.once("data", () => this.#whenRead(done));
  }
  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#sink.end();
  }
}

/**
 * Decodes a whole body off the event loop. Undefined where the coding is unknown, the bytes are not of it, or the
 * result would be over `maxBytes` (a decompression bomb).
 */
export async function decodeBody(
  body: Buffer,
  coding: string,
  maxBytes: number,
): Promise<Buffer | undefined> {
  const decode = Object.hasOwn(WHOLE, coding) ? WHOLE[coding] : undefined;
  if (decode === undefined) return undefined;
  try {
    return await decode(body, { maxOutputLength: Math.max(1, maxBytes) });
  } catch {
    return undefined;
  }
}
