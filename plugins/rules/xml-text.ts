/** Comments, CDATA, instructions and declarations; tags; the text between them. */
const TOKEN =
  /<!--[\s\S]*?-->|<!\[CDATA\[[\s\S]*?\]\]>|<\?[\s\S]*?\?>|<![A-Za-z][^>]*>|<\/?[A-Za-z_][^\s<>/]*(?=[\s<>/])(?:[^<>"']|"[^"<]*"|'[^'<]*')*>|[^<]+/gy;
const NAME = /^<\/?([A-Za-z_][^\s<>/]*)/;
/** What stands in these is meant as it stands. */
const VERBATIM =
  /^(?:pre|code|codeblock|script|style|textarea|file|files|document|document_contents?|contents?|diff|patch|source|example|output|stdout|stderr|log)$/i;

/**
 * A text that is nothing but one well-formed XML element, without the white space that only separates its tags; the text
 * itself where it is none. White space beside words stays, as does all within elements that hold code or files.
 */
export function minifyXml(text: string): string {
  if (!text.startsWith("<") || !text.trimEnd().endsWith(">")) return text;
  const open: string[] = [];
  const pieces: string[] = [];
  let verbatim = 0;
  let elements = 0;
  TOKEN.lastIndex = 0;
  let at = 0;
  while (at < text.length) {
    const token = TOKEN.exec(text)?.[0];
    if (token === undefined) return text;
    at += token.length;
    if (!token.startsWith("<")) {
      const isSpace = token.trim() === "";
      if (open.length === 0 && !isSpace) return text;
      if (!isSpace || verbatim > 0 || !token.includes("\n")) pieces.push(token);
      continue;
    }
    pieces.push(token);
    const name = NAME.exec(token)?.[1];
    if (name === undefined || token.startsWith("<!") || token.startsWith("<?")) continue;
    if (token.startsWith("</")) {
      if (open.pop() !== name) return text;
      if (isVerbatim(name)) verbatim--;
    } else {
      if (open.length === 0) elements++;
      if (token.endsWith("/>")) continue;
      if (/\bxml:space\s*=/.test(token)) return text;
      open.push(name);
      if (isVerbatim(name)) verbatim++;
    }
  }
  return open.length === 0 && elements === 1 ? pieces.join("") : text;
}

function isVerbatim(name: string): boolean {
  return VERBATIM.test(name);
}
