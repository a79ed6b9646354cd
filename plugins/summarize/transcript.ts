import type { Segment } from "@tokenman/plugin-sdk";

/** Characters of one text that the summary is made from: of a longer one its beginning and its end. */
const MAX_TEXT = 8_000;
const MAX_RESULT = 2_000;
/** Characters of all of it. Of more the older part is left out. */
const MAX_TRANSCRIPT = 400_000;

/**
 * The messages [from, to) as a text for people and models to read. `before` is a summary of what came before them. Calls
 * and results of tools are named as such; thinking and attachments are left out.
 */
export function transcriptOf(
  segments: readonly Segment[],
  from: number,
  to: number,
  before: string | undefined,
): string {
  const parts: string[] = [];
  let characters = 0;
  let heading = "";
  // Backwards: what came last counts most.
  for (const segment of segments.toReversed()) {
    if (segment.message < from || segment.message >= to) continue;
    const own = headingOf(segment);
    if (own === undefined) continue;
    const text = shortened(segment.text.trim(), limitOf(segment));
    if (text === "") continue;
    characters += text.length;
    if (characters > MAX_TRANSCRIPT) {
      parts.push(heading, "[Earlier messages are missing here.]");
      heading = "";
      break;
    }
    // Texts that follow each other under one heading have it once.
    if (own !== heading && heading !== "") parts.push(heading);
    heading = own;
    parts.push(text);
  }
  if (heading !== "") parts.push(heading);
  if (before !== undefined) parts.push(before, "## Summary of what came before");
  return parts.toReversed().join("\n\n");
}

/** About how many bytes that text has, told without reading any. */
export function transcriptSize(segments: readonly Segment[], from: number, to: number): number {
  let bytes = 0;
  for (const segment of segments) {
    if (segment.message < from || segment.message >= to || headingOf(segment) === undefined) continue;
    bytes += Math.min(segment.node.end - segment.node.start, limitOf(segment));
  }
  return Math.min(bytes, MAX_TRANSCRIPT);
}

function limitOf({ kind }: Segment): number {
  return kind === "tool-result" ? MAX_RESULT : MAX_TEXT;
}

function headingOf({ role, kind, tool }: Segment): string | undefined {
  const name = tool === undefined ? "" : ` of ${tool}`;
  if (kind === "tool-call") return `## Call${name}`;
  if (kind === "tool-result") return `## Result${name}`;
  if (kind !== "text") return undefined;
  return role === "user" ? "## User" : role === "assistant" ? "## Assistant" : undefined;
}

function shortened(text: string, limit: number): string {
  if (text.length <= limit) return text;
  const half = limit / 2;
  return `${text.slice(0, half)}\n[… ${text.length - limit} characters …]\n${text.slice(-half)}`;
}
