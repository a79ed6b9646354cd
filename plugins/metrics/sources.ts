import type { Logger, MetricSource } from "@tokenman/plugin-sdk";

const LINE =
  /^(?:# (?:HELP|TYPE) [a-zA-Z_:][a-zA-Z0-9_:]* [^\n]*|[a-zA-Z_:][a-zA-Z0-9_:]*(?:\{[^\n]*\})? [-+.eE0-9a-zA-Z]+)$/;
const MAX_LENGTH = 1 << 20;

/** What other plugins contribute. One that fails, or that would spoil the whole page, is left out and named in the log. */
export class Sources {
  readonly #log: Logger;
  readonly #told = new Set<string>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Their metrics, without those that `own` or a source before has. */
  render(sources: readonly MetricSource[], own: string): string {
    const taken = new Set(namesOf(own));
    let text = "";
    for (const source of sources) {
      const part = this.#part(source, taken);
      if (part === undefined) continue;
      for (const name of namesOf(part)) taken.add(name);
      text += part;
    }
    return text;
  }

  #part(source: MetricSource, taken: ReadonlySet<string>): string | undefined {
    try {
      const rendered = source.render();
      if (rendered.length > MAX_LENGTH) throw new RangeError("it is over 1 MiB");
      const part = rendered === "" || rendered.endsWith("\n") ? rendered : `${rendered}\n`;
      for (const line of part.split("\n").slice(0, -1))
        if (!LINE.test(line)) throw new SyntaxError(`not a line of the format: ${line.slice(0, 200)}`);
      const twice = namesOf(part).find((name) => taken.has(name));
      if (twice !== undefined) throw new RangeError(`${twice} is there already`);
      return part;
    } catch (err) {
      if (!this.#told.has(source.name))
        this.#log.warn({ source: source.name, err }, "metrics of a plugin are left out");
      this.#told.add(source.name);
      return undefined;
    }
  }
}

function namesOf(text: string): string[] {
  return [...text.matchAll(/^# TYPE (\S+) /gm)].map(([, name]) => name!);
}
