/**
 * The shortest prompt that a model caches, in tokens, by the beginning of its name; the longest beginning counts. From
 * Anthropic's page on prompt caching and the clouds' copies of it; where they, or users' measurements, contradict each
 * other (Sonnet 4.6: 1,024 or 2,048), the larger one. A mark below the minimum is ignored by the provider and costs
 * nothing, but it takes one of the four places.
 */
const MINIMUMS: Readonly<Record<string, number>> = {
  "claude-3-haiku": 2_048,
  "claude-3-5-haiku": 2_048,
  "claude-haiku-3": 2_048,
  "claude-haiku-4-5": 4_096,
  "claude-opus-4-5": 4_096,
  "claude-opus-4-6": 4_096,
  "claude-opus-4-7": 4_096,
  "claude-sonnet-4-6": 2_048,
};

/** Of every other model: what most of them document. */
const USUAL = 1_024;
const NAMES = byLength(Object.keys(MINIMUMS));

/** The minimum for a model; `own` are the user's, in the same form. */
export function minimumOf(model: string, own: Readonly<Record<string, number>>): number {
  const name = model.toLowerCase();
  // Gateways and clouds put their own names before it.
  const bare = name.slice(Math.max(name.lastIndexOf("/") + 1, name.indexOf("claude-")));
  const ownName = byLength(Object.keys(own)).find((each) => model.startsWith(each));
  if (ownName !== undefined) return own[ownName]!;
  const known = NAMES.find((each) => bare.startsWith(each));
  return known === undefined ? USUAL : MINIMUMS[known]!;
}

function byLength(names: readonly string[]): readonly string[] {
  return names.toSorted((a, b) => b.length - a.length);
}
