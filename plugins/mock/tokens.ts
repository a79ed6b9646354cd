/**
 * The embedded provider's tokens are a rule, not a tokenizer: so many bytes of UTF-8 are one token (four, where the config
 * does not say), begun ones included; a message costs four more, and an image or a file 1,500. The same text always
 * counts the same.
 */
export const BYTES_PER_TOKEN = 4;
export const MESSAGE_TOKENS = 4;
export const ATTACHMENT_TOKENS = 1_500;

export function tokensOf(text: string, bytesPerToken: number = BYTES_PER_TOKEN): number {
  return Math.ceil(Buffer.byteLength(text) / bytesPerToken);
}

/** The beginning of `text` that is at most `tokens` long, cut between characters. */
export function firstTokens(text: string, tokens: number): string {
  if (tokensOf(text) <= tokens) return text;
  const bytes = Buffer.from(text);
  let end = Math.floor(tokens) * BYTES_PER_TOKEN;
  // A byte 10xxxxxx continues a character.
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.toString("utf8", 0, end);
}

/** The number of whole bytes that `tokens` tokens cover. */
export function bytesOf(tokens: number, bytesPerToken: number): number {
  return Math.floor(tokens * bytesPerToken);
}
