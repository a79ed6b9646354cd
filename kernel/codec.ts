import { promisify } from "node:util";
import zlib from "node:zlib";

/** A decoder of one content coding: a Node transform stream. */
export type Decoder = zlib.Gunzip | zlib.BrotliDecompress | zlib.ZstdDecompress | zlib.Inflate;

const DECODERS: Readonly<Record<string, () => Decoder>> = {
  // A cut compressed stream still gives the bytes so far; the cut itself is reported by whoever carries the bytes.
  gzip: () => zlib.createGunzip({ finishFlush: zlib.constants.Z_SYNC_FLUSH }),
  "x-gzip": () => zlib.createGunzip({ finishFlush: zlib.constants.Z_SYNC_FLUSH }),
  deflate: () => zlib.createInflate({ finishFlush: zlib.constants.Z_SYNC_FLUSH }),
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

/** Whether {@link createDecoder} knows the coding. Lists of codings ("gzip, br") are not known. */
export function isKnownCoding(coding: string): boolean {
  return Object.hasOwn(DECODERS, coding);
}

export function createDecoder(coding: string): Decoder {
  const make = Object.hasOwn(DECODERS, coding) ? DECODERS[coding] : undefined;
  if (make === undefined) throw new TypeError(`unknown content coding ${coding}`);
  return make();
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
