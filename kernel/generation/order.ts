import { STAGES, type Stage } from "@tokenman/plugin-sdk";
import type { LoadedPlugin } from "../load/index.ts";

export interface Ordered {
  /** In the order in which a request passes them. */
  readonly plugins: readonly LoadedPlugin[];
  /** Each inversion of stages in the list, in a sentence. */
  readonly warnings: readonly string[];
  /** The listed names with the stages in order; undefined where the list has no inversion. */
  readonly suggested: readonly string[] | undefined;
}

/** A plugin without a stage that no list names goes where most features are: after all guards, before the route. */
const UNSTAGED: Stage = "shape";

/**
 * The list's order is kept as it is. A plugin that it does not name goes before the first one of a later stage, so that
 * also in a list with inverted stages a guard sees what it is there for; several such are sorted by stage, then by name.
 */
export function orderPlugins(loaded: readonly LoadedPlugin[]): Ordered {
  const listed = loaded.filter((each) => each.listed);
  const unlisted = loaded.filter((each) => !each.listed).sort(byStageThenName);
  const plugins = [...listed];
  for (const each of unlisted) {
    const before = plugins.findIndex((other) => stageIndex(other) > stageIndex(each));
    plugins.splice(before === -1 ? plugins.length : before, 0, each);
  }
  const inversions = inversionsOf(listed);
  if (inversions.length === 0) return { plugins, warnings: [], suggested: undefined };
  const suggested = suggest(listed);
  const [{ from }] = listed as [LoadedPlugin];
  const warnings = inversions.map(
    ([early, late]) =>
      `${from} puts "${early.plugin.name}" (stage ${early.plugin.stage}) before "${late.plugin.name}" (stage ${late.plugin.stage})`,
  );
  warnings.push(`stages run ${STAGES.join(", ")}; suggested order: ${JSON.stringify(suggested)}`);
  return { plugins, warnings, suggested };
}

function stageIndex({ plugin }: LoadedPlugin): number {
  return STAGES.indexOf(plugin.stage ?? UNSTAGED);
}

function byStageThenName(left: LoadedPlugin, right: LoadedPlugin): number {
  return stageIndex(left) - stageIndex(right) || (left.plugin.name < right.plugin.name ? -1 : 1);
}

/** Neighbours among the listed plugins that declare a stage, where the later one belongs earlier. */
function inversionsOf(listed: readonly LoadedPlugin[]): [LoadedPlugin, LoadedPlugin][] {
  const staged = listed.filter(({ plugin }) => plugin.stage !== undefined);
  return staged.slice(1).flatMap((late, index): [LoadedPlugin, LoadedPlugin][] => {
    const early = staged[index]!;
    return stageIndex(early) > stageIndex(late) ? [[early, late]] : [];
  });
}

/** A stable sort by stage, in which a plugin without a stage stays behind the one it followed. */
function suggest(listed: readonly LoadedPlugin[]): string[] {
  let stage = 0;
  const keyed = listed.map((each) => {
    if (each.plugin.stage !== undefined) stage = stageIndex(each);
    return { name: each.plugin.name, stage };
  });
  return keyed.sort((left, right) => left.stage - right.stage).map(({ name }) => name);
}
