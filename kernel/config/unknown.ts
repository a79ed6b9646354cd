import type { Draft } from "./problem.ts";
import { unknownKey } from "./problem.ts";
import { type Layout, PROJECTS } from "./section.ts";
import { childShapes, type Shape, shapeAt } from "./shape.ts";
import { formatPath, isTable, type Table } from "./table.ts";

/** 1 to 64 letters, digits, `_`, `.` and `-`; and no path component that means something else. */
const PROJECT_NAME = /^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$/;

export function isProjectName(name: string): boolean {
  return PROJECT_NAME.test(name);
}

/**
 * Takes out of `table` what no section knows, and reports it: keys, sections, projects' names, and things that must
 * be tables and are not. What remains is for the schemas to judge.
 */
export function removeUnknown(table: Table, layout: Layout): Draft[] {
  const drafts: Draft[] = [];
  walk(table, [], [layout.root]);
  return drafts;

  function walk(value: unknown, path: readonly PropertyKey[], shapes: readonly Shape[]): void {
    if (Array.isArray(value)) {
      value.forEach((element, index) => {
        walk(
          element,
          [...path, index],
          shapes.flatMap((shape) => childShapes(shape, index)),
        );
      });
      return;
    }
    if (!isTable(value)) return;
    for (const [key, child] of Object.entries(value)) {
      const below = [...path, key];
      const known = shapes.flatMap((shape) => childShapes(shape, key));
      const problem = judge(child, key, below, known, shapes);
      if (problem === undefined) {
        walk(child, below, known);
      } else {
        drafts.push(problem);
        delete value[key];
      }
    }
  }

  function judge(
    child: unknown,
    key: string,
    path: readonly PropertyKey[],
    known: readonly Shape[],
    parents: readonly Shape[],
  ): Draft | undefined {
    if (key === "__proto__") {
      return {
        code: "TM_CONFIG_UNKNOWN_KEY",
        path,
        at: "key",
        message: `${formatPath(path)}: this key is never allowed`,
      };
    }
    // A scalar where its parent takes no keys at all is the parent's problem, which its schema names.
    if (known.length === 0 && parents.every((shape) => shape.kind !== "table" && shape.kind !== "union"))
      return undefined;
    if (known.length === 0) return unknownHere(path, parents);
    if (path[0] === PROJECTS && path.length === 2 && !isProjectName(key)) {
      const expected = "expected a project name: 1 to 64 letters, digits, _, . or -";
      return { code: "TM_CONFIG_INVALID", path, at: "key", message: `${formatPath(path)}: ${expected}` };
    }
    if (!isTable(child) && mustBeTable(path)) {
      const found = Array.isArray(child) ? "a list" : "a value";
      return {
        code: "TM_CONFIG_INVALID",
        path,
        at: "value",
        message: `${formatPath(path)}: expected a table, found ${found}`,
      };
    }
    return undefined;
  }

  function mustBeTable(path: readonly PropertyKey[]): boolean {
    if (path[0] !== PROJECTS) return layout.structure.has(path.join("."));
    return path.length <= 2 || layout.structure.has(path.slice(2).join("."));
  }

  function unknownHere(path: readonly PropertyKey[], parents: readonly Shape[]): Draft {
    const parent: Shape =
      parents.length === 1 ? parents[0]! : { ...parents[0]!, kind: "union", options: parents };
    const inProject = path[0] === PROJECTS && path.length > 2;
    if (inProject && shapeAt(layout.root, path.slice(2)) !== undefined && path.slice(2)[0] !== PROJECTS) {
      const overlays = [...layout.sections.values()]
        .filter((section) => section.perProject)
        .map((section) => section.path);
      return {
        code: "TM_CONFIG_INVALID",
        path,
        at: "key",
        message:
          `${formatPath(path)}: ${formatPath(path.slice(2))} is the same for all projects; ` +
          `expected disable or one of ${overlays.join(", ")}`,
      };
    }
    return unknownKey(path, parent, elsewhere(String(path.at(-1)), path));
  }

  /** Another section that knows the key: it is under the wrong header. Third parties' sections have nothing in common. */
  function elsewhere(key: string, path: readonly PropertyKey[]): string | undefined {
    for (const section of layout.sections.values()) {
      const here = section.path === path.slice(0, -1).join(".");
      if (!here && key !== "enabled" && !section.path.startsWith("plugins.") && section.shape.keys.has(key))
        return section.path;
    }
    return undefined;
  }
}
