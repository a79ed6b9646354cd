/** A column of a table for a terminal. */
export interface Column {
  readonly title: string;
  readonly align: "left" | "right";
  /** Cut where the terminal is narrow; of several, the widest first. */
  readonly shrinks?: boolean;
  /** Left out where it is too narrow even so; the highest goes first. */
  readonly dispensable?: number;
}

const GAP = "  ";
const SHORTEST = 8;

/** Lines of a table that fits `width` columns where it can, its title first. Cells are made harmless: no control characters. */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  width = Number.POSITIVE_INFINITY,
): string[] {
  let shown = columns.map((column, at) => ({ column, at }));
  const cells = [columns.map(({ title }) => title), ...rows.map((row) => row.map(harmless))];
  const widths = columns.map((_, at) => Math.max(...cells.map((row) => [...(row[at] ?? "")].length)));
  const total = (): number =>
    shown.reduce((sum, { at }) => sum + widths[at]!, GAP.length * (shown.length - 1));
  while (total() > width) {
    const widest = shown
      .filter(({ column, at }) => column.shrinks === true && widths[at]! > SHORTEST)
      .sort((left, right) => widths[right.at]! - widths[left.at]!)[0];
    if (widest !== undefined) {
      widths[widest.at]!--;
      continue;
    }
    const [first] = shown
      .filter(({ column }) => column.dispensable !== undefined)
      .sort((left, right) => right.column.dispensable! - left.column.dispensable!);
    if (first === undefined) break;
    shown = shown.filter((each) => each !== first);
  }
  return cells.map((row) =>
    shown
      .map(({ column, at }) => fit(row[at] ?? "", widths[at]!, column.align))
      .join(GAP)
      .trimEnd(),
  );
}

function fit(text: string, width: number, align: Column["align"]): string {
  const letters = [...text];
  if (letters.length > width) return `${letters.slice(0, width - 1).join("")}…`;
  const blank = " ".repeat(width - letters.length);
  return align === "left" ? text + blank : blank + text;
}

/** Names come from clients: what would steer the terminal is shown as a dot. */
export function harmless(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, "·");
}
