/** A longer line is no prose, and patterns must not take long over it. */
const MAX_LINE = 2_000;
const FENCE = /^ {0,3}(`{3,}|~{3,})/;
/** A span of code within a line. */
const CODE_SPAN = /(`+)[^`](?:.*?[^`])?\1(?!`)/g;

/**
 * Applies `change` to the lines of a Markdown text that are prose, one after another: not within fences, nor indented as
 * code. A line becomes what is returned; undefined drops it.
 */
function eachProseLine(text: string, change: (line: string) => string | undefined): string {
  const lines = text.split("\n");
  const kept: string[] = [];
  let fence: string | undefined;
  for (const line of lines) {
    const mark = FENCE.exec(line)?.[1];
    if (fence !== undefined) {
      if (mark?.[0] === fence[0] && mark!.length >= fence.length && line.trim() === mark) fence = undefined;
      kept.push(line);
    } else if (mark !== undefined) {
      fence = mark;
      kept.push(line);
    } else if (line.length > MAX_LINE || /^(?: {4}|\t)/.test(line)) kept.push(line);
    else {
      const changed = change(line);
      if (changed !== undefined) kept.push(changed);
    }
  }
  return kept.join("\n");
}

/** Applies `change` to what is not code within a line. */
function outsideCode(line: string, change: (prose: string) => string): string {
  if (!line.includes("`")) return change(line);
  let result = "";
  let from = 0;
  for (const match of line.matchAll(CODE_SPAN)) {
    result += change(line.slice(from, match.index)) + match[0];
    from = match.index + match[0].length;
  }
  return result + change(line.slice(from));
}

/** One blank for many within a line, none at its end, and one empty line for many. What a line is indented by stays. */
export function collapseWhitespace(text: string): string {
  let empty = 0;
  return eachProseLine(text, (line) => {
    const indent = /^[ \t]*/.exec(line)![0];
    const rest = outsideCode(line.slice(indent.length), (prose) =>
      prose.replace(/[ \t]{2,}/g, " "),
    ).trimEnd();
    if (rest !== "") {
      empty = 0;
      return indent + rest;
    }
    return ++empty > 1 ? undefined : "";
  });
}

/** Headings, rules and strong emphasis as plain text. Links, lists, quotes and tables stay: they say something. */
export function stripMarkdown(text: string): string {
  return eachProseLine(text, (line) => {
    if (/^ {0,3}(?:(?:\* *){3,}|(?:_ *){3,})$/.test(line)) return undefined;
    const plain = line.replace(/^ {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$/, "$1");
    return outsideCode(plain, (prose) =>
      prose
        .replace(/\*\*(?=\S)([^*]+?)(?<=\S)\*\*/g, "$1")
        .replace(/(?<!\w)__(?=\S)([^_]+?)(?<=\S)__(?!\w)/g, "$1"),
    );
  });
}

/** A paragraph that is shorter is not worth a reference. */
const MIN_PARAGRAPH = 200;
const QUOTED = 40;

/** The paragraphs of system prompts that messages may repeat. */
export function paragraphsOf(texts: Iterable<string>): ReadonlySet<string> {
  const found = new Set<string>();
  for (const text of texts)
    for (const paragraph of text.split(/\n{2,}/))
      if (paragraph.trim().length >= MIN_PARAGRAPH) found.add(paragraph.trim());
  return found;
}

/** Refers to the system prompt in the place of its paragraphs, and to a text's own where it repeats itself. */
export function referToInstructions(text: string, system: ReadonlySet<string>): string {
  if (text.length < MIN_PARAGRAPH || text.includes("```") || text.includes("~~~")) return text;
  const seen = new Set<string>();
  return text
    .split(/(\n{2,})/)
    .map((paragraph) => {
      const words = paragraph.trim();
      if (words.length < MIN_PARAGRAPH) return paragraph;
      const isKnown = system.has(words) || seen.has(words);
      seen.add(words);
      return isKnown ? `[As instructed before: "${words.slice(0, QUOTED).trim()}…"]` : paragraph;
    })
    .join("");
}
