import type { Segment, SegmentSpan } from "@tokenman/plugin-sdk";
import { minifyJson } from "./json-text.ts";
import { isDataTool, isFileTool, looksLikeCode, quotesFile } from "./looks.ts";
import { collapseWhitespace, referToInstructions, stripMarkdown } from "./prose.ts";
import type { Ruleset } from "./ruleset.ts";
import { withoutAnsi, withoutProgress, withRunsCounted } from "./terminal.ts";
import { minifyXml } from "./xml-text.ts";

/** A longer text is left alone: to look through it would take the loop's time. */
const MAX_CHARACTERS = 262_144;
/** … line by line, and with more than one pattern for each. */
const MAX_LINED_CHARACTERS = 65_536;

/** Whether the rules can concern a segment of `body` at all; told without reading its text. */
export function isConcerned(span: SegmentSpan, rules: Ruleset, body: Buffer): boolean {
  const { kind, role, start } = span;
  if (span.sealed || rules.id === "") return false;
  if (kind === "tool-result") return rules.toolOutput && !isFileTool(span.tool) && body[start] === 0x22;
  if (kind !== "text" && kind !== "system") return false;
  if (role !== "user" && role !== "system") return false;
  if (body[start] !== 0x22) return false;
  const first = body[start + 1];
  if (rules.whitespace || rules.markdown || rules.instructions) return true;
  return (rules.json && (first === 0x7b || first === 0x5b)) || (rules.xml && first === 0x3c);
}

/**
 * What the rules make of a segment's text: the same for the same text, always. `system` are the paragraphs that need not be
 * said again.
 */
export function rewrite(
  { kind, tool }: Pick<Segment, "kind" | "tool">,
  text: string,
  rules: Ruleset,
  system: ReadonlySet<string>,
): string {
  if (text.length > MAX_CHARACTERS) return text;
  const result =
    kind === "tool-result" ? rewriteResult(text, tool, rules) : rewriteText(kind, text, rules, system);
  // Providers refuse an empty text.
  return result.trim() === "" ? text : result;
}

function rewriteText(
  kind: Segment["kind"],
  text: string,
  rules: Ruleset,
  system: ReadonlySet<string>,
): string {
  const pure = pureData(text, rules);
  if (pure !== text || text.length > MAX_LINED_CHARACTERS || quotesFile(text)) return pure;
  let result = text;
  if (rules.instructions && kind !== "system") result = referToInstructions(result, system);
  if (rules.markdown) result = stripMarkdown(result);
  if (rules.whitespace) result = collapseWhitespace(result);
  return result;
}

function pureData(text: string, { json, xml }: Ruleset): string {
  const result = json ? minifyJson(text) : text;
  return result === text && xml ? minifyXml(text) : result;
}

/** What a program printed. Whatever may be a file, a diff or code stays to the byte. */
function rewriteResult(text: string, tool: string | undefined, rules: Ruleset): string {
  if (isDataTool(tool)) {
    const pure = pureData(text, rules);
    if (pure !== text) return pure;
  }
  if (text.length > MAX_LINED_CHARACTERS) return text;
  const plain = withoutAnsi(text);
  if (looksLikeCode(plain)) return text;
  return withRunsCounted(withoutProgress(plain));
}
