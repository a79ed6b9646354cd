/** Control sequences of terminals (ECMA-48): CSI, OSC and the two-character ones. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const ANSI = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;
const MIN_RUN = 4;
const MIN_LINE = 8;

/** The text without colours and cursor movements. */
export function withoutAnsi(text: string): string {
  return text.includes("\u001b") ? text.replace(ANSI, "") : text;
}

/** Of a line that was drawn over and over, as progress bars are, what stood there at last. */
export function withoutProgress(text: string): string {
  if (!/\r(?!\n|$)/.test(text)) return text;
  return text
    .split("\n")
    .map((line) => {
      const end = line.endsWith("\r") ? "\r" : "";
      const drawn = line.slice(0, line.length - end.length);
      return drawn.slice(drawn.lastIndexOf("\r") + 1) + end;
    })
    .join("\n");
}

/** One of many identical lines in a row, and how many more there were. */
export function withRunsCounted(text: string): string {
  const lines = text.split("\n");
  const kept: string[] = [];
  for (let at = 0; at < lines.length; ) {
    const line = lines[at]!;
    let end = at + 1;
    while (end < lines.length && lines[end] === line) end++;
    const more = end - at - 1;
    if (more + 1 >= MIN_RUN && line.trim().length >= MIN_LINE)
      kept.push(line, `[${more} more lines like this one]`);
    else for (let same = at; same < end; same++) kept.push(line);
    at = end;
  }
  return kept.length === lines.length ? text : kept.join("\n");
}
