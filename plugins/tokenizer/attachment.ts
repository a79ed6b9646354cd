import { type Exchange, type JsonNode, type Segment, textOf } from "@tokenman/plugin-sdk";
import { imageSize } from "./image-size.ts";
import type { Detail, ImageRule } from "./image-tokens.ts";

/** Base64 characters that hold an image's size: those of most, and those of a JPEG with a profile and a preview before it. */
const HEADS = [4_096, 262_144];

/** A page of a PDF is read as text and as an image: Anthropic gives 1,500 to 3,000 tokens for the text alone. */
const TOKENS_PER_PAGE = 3_000;
/** Pages cannot be counted without unpacking the file: a rough guess. */
const BYTES_PER_PAGE = 75_000;
/** Tokens of a file that is only named. */
const UNKNOWN_FILE = 1_500;
/** OpenAI bills ten tokens a second of audio; at 16 bits and 24 kHz, the usual format, that is 48,000 bytes. */
const AUDIO_BYTES_PER_TOKEN = 4_800;

/** Tokens of an image, a PDF or a sound, told from its kind, its size and its first bytes. */
export function attachmentTokens(exchange: Exchange, segment: Segment, rule: ImageRule): number {
  const { node } = segment;
  const body = exchange.request.body;
  const { data, isImage, detail } = partsOf(node);
  if (isImage) {
    return rule.tokens(data === undefined || body === undefined ? undefined : sizeOf(body, data), detail);
  }
  if (data === undefined) return UNKNOWN_FILE;
  const bytes = ((data.end - data.start) * 3) / 4;
  if (textOf(node.get("type")) === "input_audio") return Math.ceil(bytes / AUDIO_BYTES_PER_TOKEN);
  return Math.max(1, Math.ceil(bytes / BYTES_PER_PAGE)) * TOKENS_PER_PAGE;
}

interface Parts {
  /** The string that holds the bytes, as base64 or as a data URL. */
  readonly data: JsonNode | undefined;
  readonly isImage: boolean;
  readonly detail: Detail;
}

/** Anthropic's sources, and OpenAI's parts of Chat and of Responses. */
function partsOf(node: JsonNode): Parts {
  const type = textOf(node.get("type"));
  const url = node.get("image_url");
  if (type === "image_url" || type === "input_image" || type === "computer_screenshot") {
    const holder = url?.kind === "object" ? url : node;
    const address = url?.kind === "object" ? url.get("url") : url;
    return { data: dataUrl(address), isImage: true, detail: detailOf(textOf(holder.get("detail"))) };
  }
  if (type === "input_audio")
    return { data: node.get("input_audio")?.get("data"), isImage: false, detail: "high" };
  if (type === "file" || type === "input_file") {
    const file = node.get("file") ?? node;
    return { data: file.get("file_data"), isImage: false, detail: "high" };
  }
  const media = textOf(node.get("media_type"));
  // A URL or a file's id: what Anthropic's images and documents have in common is that neither says which it is.
  const isImage = media?.startsWith("image/") ?? true;
  return { data: type === "base64" ? node.get("data") : undefined, isImage, detail: "high" };
}

function detailOf(detail: string | undefined): Detail {
  return detail === "low" || detail === "original" ? detail : "high";
}

function dataUrl(address: JsonNode | undefined): JsonNode | undefined {
  return address?.kind === "string" ? address : undefined;
}

function sizeOf(body: Buffer, data: JsonNode) {
  // Past the quote, and past "data:image/png;base64," where there is that.
  let start = data.start + 1;
  const end = data.end - 1;
  const head = body.toString("latin1", start, Math.min(end, start + 128));
  if (head.startsWith("data:")) {
    const comma = head.indexOf(",");
    if (comma < 0) return undefined;
    start += comma + 1;
  } else if (/^https?:/.test(head)) return undefined;
  for (const characters of HEADS) {
    const stop = Math.min(end, start + characters);
    // Some encoders write "\/" for "/".
    const text = body.toString("latin1", start, stop).replaceAll("\\/", "/");
    const size = imageSize(Buffer.from(text, "base64"));
    if (size !== undefined || stop === end) return size;
  }
  return undefined;
}
