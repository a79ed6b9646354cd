import type { ConfigParts } from "./config.ts";
import { isSecretName, REDACTED, redactText } from "./secret.ts";
import type { Layout } from "./section.ts";
import { type Shape, shapeAt } from "./shape.ts";
import { emptyTable, isTable, set, splitPath } from "./table.ts";

/** The effective config and the projects' overlays as they are written, without secrets. */
export function redactSections(
  layout: Layout,
  parts: ConfigParts,
  core: ReadonlyMap<string, unknown>,
): Readonly<Record<string, unknown>> {
  const result = emptyTable();
  for (const [path, { value, written, enabled }] of parts.base) {
    // The shape of the whole file: what `plugins.configs` holds is described by the plugins' own sections.
    const shape = shapeAt(layout.root, splitPath(path));
    const shown = redactValue(core.get(path) ?? value ?? written ?? {}, "", shape);
    // A loose copy: sections nest in each other, and `set` merges.
    const table = isTable(shown) ? { ...shown } : {};
    if (shape?.keys.has("enabled") === true) table["enabled"] ??= enabled ?? true;
    set(result, splitPath(path), table);
  }
  for (const [project, sections] of parts.overlays) {
    const overlay = emptyTable();
    const disable = [...(parts.disabled.get(project) ?? [])];
    if (disable.length > 0) overlay["disable"] = disable;
    for (const [path, { value, enabled }] of sections) {
      const shown = redactValue(value, "", shapeAt(layout.root, splitPath(path)));
      set(
        overlay,
        splitPath(path),
        isTable(shown) ? { ...(enabled !== undefined && { enabled }), ...shown } : shown,
      );
    }
    set(result, ["projects", project], overlay);
  }
  return toPlain(result) as Readonly<Record<string, unknown>>;
}

function redactValue(value: unknown, key: string, shape: Shape | undefined): unknown {
  if (shape?.secret === true || isSecretName(key)) {
    // Whether it is set is no secret.
    if (value === "" || value === undefined || typeof value === "boolean") return value;
    return isTable(value) ? redactAll(value) : REDACTED;
  }
  if (typeof value === "string") return redactText(key, value);
  if (Array.isArray(value)) return value.map((each) => redactValue(each, key, shape && shapeAt(shape, [0])));
  if (!isTable(value)) return value;
  const result = emptyTable();
  for (const [child, content] of Object.entries(value)) {
    result[child] = redactValue(content, child, shape && shapeAt(shape, [child]));
  }
  return result;
}

function redactAll(value: unknown): unknown {
  if (!isTable(value)) return REDACTED;
  return Object.fromEntries(Object.entries(value).map(([key, child]) => [key, redactAll(child)]));
}

function toPlain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(toPlain);
  if (!isTable(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, child]) => [key, toPlain(child)]));
}
