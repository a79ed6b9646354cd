/** Characters of a piece of text that is counted at once: a few milliseconds of a worker. */
export const PIECE = 32_768;
/** How far back from its end a piece may be cut at a line or a blank, where cutting changes the count least. */
const REACH = 1_024;

/** Longer texts are not counted whole: evenly spaced samples of them are, and the rest is taken to be like those. */
export const SAMPLED_ABOVE = 1_048_576;
const SAMPLES = 16;
const SAMPLE = 16_384;

/** What to count of a text, and what to multiply the sum with. */
export interface Cut {
  readonly pieces: readonly string[];
  readonly factor: number;
}

/** Cuts a text into pieces of bounded size, or samples it. */
export function cut(text: string): Cut {
  if (text.length > SAMPLED_ABOVE) return sample(text.length, (from, to) => text.slice(from, to));
  if (text.length <= PIECE) return { pieces: [text], factor: 1 };
  const pieces: string[] = [];
  for (let from = 0; from < text.length; ) {
    const to = from + PIECE >= text.length ? text.length : boundary(text, from + PIECE);
    pieces.push(text.slice(from, to));
    from = to;
  }
  return { pieces, factor: 1 };
}

/** Samples of a text of `length` units, which `slice` gives. */
export function sample(length: number, slice: (from: number, to: number) => string): Cut {
  const step = (length - SAMPLE) / (SAMPLES - 1);
  const pieces = Array.from({ length: SAMPLES }, (_, index) => {
    const from = Math.floor(index * step);
    return slice(from, from + SAMPLE);
  });
  return { pieces, factor: length / (SAMPLES * SAMPLE) };
}

/** After the last line end within reach, else before the last blank, else where no pair of surrogates is split. */
function boundary(text: string, end: number): number {
  const line = text.lastIndexOf("\n", end - 1);
  if (line >= end - REACH) return line + 1;
  const blank = text.lastIndexOf(" ", end - 1);
  if (blank >= end - REACH) return blank;
  const unit = text.charCodeAt(end - 1);
  return unit >= 0xd800 && unit <= 0xdbff ? end - 1 : end;
}

/** Byte-pair merging takes time with the square of an unbroken run, so longer ones are broken. */
const LONGEST_RUN = 512;

/** Where to break a text so that no run of letters, of blanks or of signs is long; a text without any is one part. */
export function breakRuns(text: string): readonly string[] {
  if (text.length <= LONGEST_RUN) return [text];
  let parts: string[] | undefined;
  let from = 0;
  let runStart = 0;
  let runKind = kindOf(text.charCodeAt(0));
  for (let at = 1; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    const kind = kindOf(unit);
    if (kind !== runKind || kind === DIGIT) {
      runKind = kind;
      runStart = at;
    } else if (at - runStart >= LONGEST_RUN && !(unit >= 0xdc00 && unit <= 0xdfff)) {
      parts ??= [];
      parts.push(text.slice(from, at));
      from = at;
      runStart = at;
    }
  }
  if (parts === undefined) return [text];
  parts.push(text.slice(from));
  return parts;
}

const LETTER = 0;
const BLANK = 1;
const DIGIT = 2;
const SIGN = 3;

/** Roughly the classes at whose borders the encodings split before they merge; all that is not ASCII counts as letters. */
function kindOf(unit: number): number {
  if (unit >= 0x80 || (unit >= 0x61 && unit <= 0x7a) || (unit >= 0x41 && unit <= 0x5a)) return LETTER;
  if (unit === 0x20 || (unit >= 0x09 && unit <= 0x0d)) return BLANK;
  return unit >= 0x30 && unit <= 0x39 ? DIGIT : SIGN;
}
