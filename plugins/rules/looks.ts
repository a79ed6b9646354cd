/** Tools whose results are files, parts of files, or patches. */
const FILE_TOOL =
  /(?:^|[_.-])(?:read|view|cat|open|edit|multi_?edit|write|create|patch|apply|diff|file|notebook|replace|str_replace)|(?:Read|View|Edit|Write|Patch|Diff|File|Notebook)/;
/** Tools that run programs: what those print may be a file, too. */
const SHELL_TOOL = /bash|shell|terminal|command|exec|run|console|powershell|repl|python|node/i;

export function isFileTool(tool: string | undefined): boolean {
  return tool !== undefined && FILE_TOOL.test(tool);
}

/** Whether a result cannot be a file's content: of a tool that is known by name, and reads or runs nothing. */
export function isDataTool(tool: string | undefined): boolean {
  return tool !== undefined && tool !== "" && !FILE_TOOL.test(tool) && !SHELL_TOOL.test(tool);
}

const DIFF =
  /^(?:diff --git |Index: |--- \S.*\n\+\+\+ |@@ -\d|\*\*\* (?:Begin Patch|Update File)|<<<<<<< |>>>>>>> )/m;
const CODE_LINE =
  /^\s*(?:import [\w*{"']|export (?:const|function|class|default|type)|from \S+ import |package \w|#include|#!|using \w+;|(?:async )?function[ *]|class \w+ ?[({:]|def \w+\(|fn \w+|func \w+\(|(?:const|let|var) [\w{[]+.*=|(?:public|private|protected) |interface \w+ ?\{|type \w+ =|return\b.*;|\/\/|\/\*|<\/?[a-zA-Z][^>]*>$)|[{};]\s*$|=>\s*$/;
/** Lines of settings, logs and lists, which in prose mean nothing. */
const DATA_LINE = /^\s*(?:[\w"'.-]+\s*[:=]\s*\S|[}\])]|\* |@\w+|if ?\(|for ?\(|while ?\(|return\b)/;
const NUMBERED = /^\s*\d+(?:→|\t|\s*[|│:]|\s{2,})/;
const FENCE = /^ {0,3}(?:```|~~~)/m;
const FILE_TAG = /<(?:file|files|document|documents|document_contents?|source|content|diff|patch|code)[\s>]/i;
const SAMPLE_LINES = 400;

/** Whether a program's output may be code or a diff, or have any in it. In doubt yes: what says yes is left alone. */
export function looksLikeCode(text: string): boolean {
  return isData(text) || holdsFile(text, (line) => CODE_LINE.test(line));
}

/** Whether it may be a file of any kind: settings and lists, too, which one cannot tell from a log. */
export function looksLikeFile(text: string): boolean {
  return isData(text) || holdsFile(text, (line) => CODE_LINE.test(line) || DATA_LINE.test(line));
}

/** Whether what a person wrote is, or quotes, a file or a diff outside of fences. */
export function quotesFile(text: string): boolean {
  return holdsFile(text, (line) => CODE_LINE.test(line));
}

function isData(text: string): boolean {
  const first = text.charCodeAt(0);
  return first === 0x7b || first === 0x5b || first === 0x3c || FENCE.test(text);
}

function holdsFile(text: string, isCode: (line: string) => boolean): boolean {
  if (DIFF.test(text) || FILE_TAG.test(text)) return true;
  let lines = 0;
  let code = 0;
  let numbered = 0;
  let fenced = false;
  for (const line of linesOf(text, SAMPLE_LINES)) {
    if (FENCE.test(line)) fenced = !fenced;
    if (fenced || line.trim() === "") continue;
    lines++;
    if (isCode(line)) code++;
    if (NUMBERED.test(line)) numbered++;
  }
  return code >= Math.max(2, lines / 8) || numbered >= Math.max(2, lines / 3);
}

/** The first lines of a text, of which each is looked at only so far. */
function* linesOf(text: string, limit: number): Generator<string> {
  let from = 0;
  for (let count = 0; count < limit && from <= text.length; count++) {
    const end = text.indexOf("\n", from);
    const until = end < 0 ? text.length : end;
    yield text.slice(from, Math.min(until, from + 500));
    if (end < 0) return;
    from = end + 1;
  }
}
