import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Dialect } from "@tokenman/plugin-sdk";
import { messages } from "../../plugins/anthropic/dialects.ts";
import { chat, responses } from "../../plugins/openai/dialects.ts";
import { attachmentTokens } from "../../plugins/tokenizer/attachment.ts";
import { imageSize } from "../../plugins/tokenizer/image-size.ts";
import { imageRuleOf } from "../../plugins/tokenizer/image-tokens.ts";
import { describedExchange } from "../support/described.ts";

function png(width: number, height: number): Buffer {
  const bytes = Buffer.from("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0\0\0\0\0\x08\x06\0\0\0", "latin1");
  bytes.writeUInt32BE(width, 16);
  bytes.writeUInt32BE(height, 20);
  return bytes;
}

function gif(width: number, height: number): Buffer {
  const bytes = Buffer.from("GIF89a\0\0\0\0\xf7\0\0", "latin1");
  bytes.writeUInt16LE(width, 6);
  bytes.writeUInt16LE(height, 8);
  return bytes;
}

/** A frame header after an APP1 segment of `before` bytes, in which a preview has a frame header of its own. */
function jpeg(width: number, height: number, before = 64, marker = 0xc0): Buffer {
  const app1 = Buffer.alloc(before);
  app1.writeUInt16BE(before, 0);
  app1.set([0xff, 0xc0, 0, 17, 8, 0, 1, 0, 1], 20);
  const frame = Buffer.from([0xff, marker, 0, 17, 8, 0, 0, 0, 0, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]);
  frame.writeUInt16BE(height, 5);
  frame.writeUInt16BE(width, 7);
  return Buffer.concat([Buffer.from([0xff, 0xd8, 0xff, 0xe1]), app1, Buffer.from([0xff]), frame]);
}

function webp(kind: "VP8 " | "VP8L" | "VP8X", width: number, height: number): Buffer {
  const bytes = Buffer.alloc(40);
  bytes.write(`RIFF\0\0\0\0WEBP${kind}`, "latin1");
  if (kind === "VP8 ") {
    bytes.set([0x9d, 0x01, 0x2a], 23);
    bytes.writeUInt16LE(width, 26);
    bytes.writeUInt16LE(height, 28);
  } else if (kind === "VP8L") {
    bytes[20] = 0x2f;
    bytes.writeUInt32LE((width - 1) | ((height - 1) << 14), 21);
  } else {
    bytes.writeUIntLE(width - 1, 24, 3);
    bytes.writeUIntLE(height - 1, 27, 3);
  }
  return bytes;
}

describe("tokenizer: sizes of images", () => {
  for (const [name, bytes] of [
    ["PNG", png(1024, 768)],
    ["GIF", gif(1024, 768)],
    ["JPEG", jpeg(1024, 768)],
    ["progressive JPEG", jpeg(1024, 768, 64, 0xc2)],
    ["JPEG with a large profile", jpeg(1024, 768, 60_000)],
    ["lossy WebP", webp("VP8 ", 1024, 768)],
    ["lossless WebP", webp("VP8L", 1024, 768)],
    ["extended WebP", webp("VP8X", 1024, 768)],
  ] as const) {
    it(`reads the head of a ${name}`, () => {
      assert.deepEqual(imageSize(bytes), { width: 1024, height: 768 });
      for (let length = 0; length < bytes.length; length += Math.max(1, bytes.length >> 6)) {
        const size = imageSize(bytes.subarray(0, length));
        assert.ok(size === undefined || size.width === 1024, `cut at ${length}`);
      }
    });
  }

  it("says nothing of what it does not know", () => {
    for (const bytes of [
      Buffer.alloc(0),
      Buffer.alloc(100),
      Buffer.from("%PDF-1.7 and so on, for more than thirty bytes"),
      png(0, 10),
      Buffer.from([0xff, 0xd8, 0xff, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0]),
      Buffer.from([0xff, 0xd8, ...new Array(64).fill(0xff)]),
    ])
      assert.equal(imageSize(bytes), undefined);
  });
});

describe("tokenizer: tokens of images", () => {
  // The examples of OpenAI's guide "Images and vision", and of Anthropic's "Vision" (36 × 36 patches of 28 pixels).
  for (const [model, width, height, detail, tokens] of [
    ["gpt-4o", 1024, 1024, "high", 765],
    ["gpt-4o", 2048, 4096, "high", 1105],
    ["gpt-4o", 4096, 8192, "low", 85],
    ["gpt-4o-mini", 1024, 1024, "high", 2833 + 4 * 5667],
    ["gpt-4.1-mini", 1024, 1024, "high", Math.ceil(1024 * 1.62)],
    ["gpt-4.1-mini", 1800, 2400, "high", Math.ceil(1452 * 1.62)],
    ["o1", 512, 512, "high", 75 + 150],
    ["gpt-5", 512, 513, "high", 70 + 2 * 140],
    ["claude-opus-4-5", 1000, 1000, "high", 36 * 36],
    ["claude-opus-4-5", 8000, 8000, "high", 1568],
    ["claude-opus-5-5", 2000, 1500, "high", 72 * 54],
    ["claude-opus-5-5", 8000, 8000, "high", 4784],
    ["claude-opus-4-5", 1, 1, "high", 1],
  ] as const) {
    it(`${model} takes ${tokens} for ${width} × ${height} in ${detail} detail`, () => {
      assert.equal(imageRuleOf(model).tokens({ width, height }, detail), tokens);
    });
  }
});

describe("tokenizer: attachments of requests", () => {
  /** Tokens of the one attachment in a message of these parts. */
  function tokens(dialect: Dialect, model: string, part: unknown): number {
    const content = [part];
    const body =
      dialect.name === "openai-responses"
        ? { model, input: [{ role: "user", content }] }
        : { model, messages: [{ role: "user", content }] };
    const exchange = describedExchange(dialect, body);
    const segment = exchange.segments.find(({ kind }) => kind === "attachment");
    assert.ok(segment);
    return attachmentTokens(exchange, segment, imageRuleOf(model));
  }
  const base64 = (bytes: Buffer) => bytes.toString("base64");
  const url = (bytes: Buffer) => `data:image/png;base64,${base64(bytes)}`;

  it("sees an Anthropic image by its bytes, whatever its media type says", () => {
    const image = (data: string) => ({
      type: "image",
      source: { type: "base64", media_type: "image/png", data },
    });
    const of = (data: string) => tokens(messages, "claude-opus-4-5", image(data));
    assert.equal(of(base64(png(280, 560))), 10 * 20);
    assert.equal(of(base64(jpeg(280, 560, 65_000))), 10 * 20);
    // Of what cannot be read the most that an image may cost is expected.
    assert.equal(of("AAAA"), 1568);
    assert.equal(of(""), 1568);
  });

  it("expects a large image behind a URL", () => {
    const source = { type: "url", url: "https://example.com/cat.png" };
    assert.equal(tokens(messages, "claude-opus-4-5", { type: "image", source }), 1568);
    const part = { type: "image_url", image_url: { url: "https://example.com/cat.png" } };
    assert.equal(tokens(chat, "gpt-4o", part), 765);
  });

  it("sees images of Chat and of Responses, with their detail", () => {
    const part = (detail?: string) => ({ type: "image_url", image_url: { url: url(png(512, 512)), detail } });
    assert.equal(tokens(chat, "gpt-4o", part()), 85 + 170);
    assert.equal(tokens(chat, "gpt-4o", part("low")), 85);
    const input = { type: "input_image", image_url: url(png(1024, 1024)), detail: "auto" };
    assert.equal(tokens(responses, "gpt-4o", input), 765);
    assert.equal(
      tokens(responses, "gpt-4o", { type: "input_image", file_id: "file_1", detail: "high" }),
      765,
    );
  });

  it("guesses files by their size", () => {
    const pdf = (bytes: number) => ({
      type: "document",
      source: { type: "base64", media_type: "application/pdf", data: base64(Buffer.alloc(bytes)) },
    });
    assert.equal(tokens(messages, "claude-opus-4-5", pdf(10_000)), 3_000);
    assert.equal(tokens(messages, "claude-opus-4-5", pdf(740_000)), 30_000);
    const audio = {
      type: "input_audio",
      input_audio: { format: "wav", data: base64(Buffer.alloc(480_000)) },
    };
    assert.ok(Math.abs(tokens(chat, "gpt-4o-audio-preview", audio) - 100) <= 1);
    assert.equal(tokens(chat, "gpt-4o", { type: "file", file: { file_id: "file_1" } }), 1_500);
  });
});
