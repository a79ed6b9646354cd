import type { RulesConfig } from "./schema.ts";

/**
 * The version of what the rules do. A change of what any of them makes of a text needs a new one: conversations that began
 * with another version keep what they have, and are left alone from then on.
 */
const VERSION = "1";

/** Letters of the rules that are on, in this order: they are what is remembered of a config. */
const LETTERS: Readonly<Record<Exclude<keyof RulesConfig, "enabled">, string>> = {
  minify_json: "j",
  minify_xml: "x",
  collapse_whitespace: "w",
  strip_markdown: "m",
  dedup_instructions: "i",
  tool_output: "t",
};

/** Which rules apply to a message. */
export interface Ruleset {
  /** As it is remembered; "" where there are none. */
  readonly id: string;
  readonly json: boolean;
  readonly xml: boolean;
  readonly whitespace: boolean;
  readonly markdown: boolean;
  readonly instructions: boolean;
  readonly toolOutput: boolean;
}

export function rulesetOf(config: RulesConfig): Ruleset {
  const letters = Object.entries(LETTERS)
    .filter(([name]) => config[name as keyof RulesConfig])
    .map(([, letter]) => letter)
    .join("");
  return rulesetOfId(letters === "" ? "" : VERSION + letters);
}

/** The rules that an id names; none for one of another version. */
export function rulesetOfId(id: string): Ruleset {
  const known = rulesets.get(id);
  if (known !== undefined) return known;
  const letters = id.startsWith(VERSION) ? id.slice(VERSION.length) : "";
  const made: Ruleset = Object.freeze({
    id,
    json: letters.includes("j"),
    xml: letters.includes("x"),
    whitespace: letters.includes("w"),
    markdown: letters.includes("m"),
    instructions: letters.includes("i"),
    toolOutput: letters.includes("t"),
  });
  if (rulesets.size < 1_000) rulesets.set(id, made);
  return made;
}

const rulesets = new Map<string, Ruleset>();

/** Whether no texts can be concerned but those that begin with a bracket. */
export function isJsonOnly({ xml, whitespace, markdown, instructions, toolOutput }: Ruleset): boolean {
  return !xml && !whitespace && !markdown && !instructions && !toolOutput;
}

export const NO_RULES: Ruleset = rulesetOfId("");
