import { nearest } from "@tokenman/plugin-sdk";
import type { Config } from "./config.ts";
import { isLoopback } from "./core.ts";
import type { CoreConfig } from "./core-value.ts";
import type { EnvSetting } from "./env.ts";
import type { Draft } from "./problem.ts";
import type { RawConfig } from "./raw.ts";
import { type Layout, PROJECTS, type Section } from "./section.ts";
import { shapeOf } from "./shape.ts";
import { formatKey, formatPath, get, isTable, quote, type Table } from "./table.ts";

/** The file with the environment laid over it, known keys only. */
export interface Written {
  readonly raw: RawConfig;
  readonly layout: Layout;
  readonly table: Table;
  readonly settings: readonly EnvSetting[];
}

/** Rules of the core that no schema of a single value can state. */
export function coreChecks({ server, auth }: CoreConfig, { table }: Written): Draft[] {
  const drafts: Draft[] = [];
  const has = (path: readonly string[]) => get(table, path) !== undefined;
  /** What is missing is shown at the setting that asks for it. */
  const invalid = (path: readonly string[], problem: string, cause = path) => {
    const message = `${formatPath(path)}: ${problem}`;
    drafts.push({ code: "TM_CONFIG_INVALID", path: has(path) ? path : cause, at: "value", message });
  };
  if (server.proxy_port === server.dashboard_port && server.proxy_port !== 0) {
    const problem = `expected two different ports, found ${server.proxy_port} for both`;
    invalid(["server", "dashboard_port"], problem, ["server", "proxy_port"]);
  }
  for (const key of ["cert_file", "key_file"] as const) {
    if (!server.tls_enabled || server[key] !== "") continue;
    invalid(["server", key], "expected a file, as tls_enabled is true, found nothing", [
      "server",
      "tls_enabled",
    ]);
  }
  // A token that was refused for another reason has been reported already.
  if (
    auth.enabled &&
    auth.token === "" &&
    (!has(["auth", "token"]) || get(table, ["auth", "token"]) === "")
  ) {
    const problem =
      "expected a token, as auth.enabled is true, found nothing; TOKENMAN_AUTH_TOKEN may hold it";
    invalid(["auth", "token"], problem, ["auth", "enabled"]);
  }
  if (!isLoopback(server.bind_address) && !auth.enabled && !server.allow_open_bind) {
    const path = ["server", "bind_address"];
    const message =
      `${formatPath(path)}: ${quote(server.bind_address)} can be reached from other machines; ` +
      "expected a loopback address, auth.enabled = true with a token, or server.allow_open_bind = true";
    drafts.push({ code: "TM_CONFIG_OPEN_BIND", path, at: "value", message });
  }
  return drafts;
}

/** Protections that are switched on in so many words, while no loaded plugin provides them. */
export function missingGuards({ layout, table }: Written): Draft[] {
  const drafts: Draft[] = [];
  for (const section of layout.sections.values()) {
    if (!isMissingGuard(section)) continue;
    for (const base of placesOf(section, table)) {
      const path = [...base, "enabled"];
      if (get(table, path) !== true) continue;
      const planned = section.specs.every((spec) => spec.planned === true);
      const reason = planned
        ? "this version has no such feature yet"
        : `the plugin ${section.specs[0]!.owner} is not loaded`;
      const message = `${formatPath(path)}: expected a plugin that provides this guard, found none: ${reason}; set it to false to go on without`;
      drafts.push({ code: "TM_GUARD_MISSING", path, at: "value", message });
    }
  }
  return drafts;
}

/** What does not stop TokenMan, but will not do what its author meant. */
export function warn(
  written: Written,
  config: Config,
  {
    plugins = [],
    alwaysOn = [],
  }: { readonly plugins?: Iterable<string>; readonly alwaysOn?: readonly string[] },
): string[] {
  const { layout, table } = written;
  const warnings: string[] = [];
  const planned: string[] = [];
  for (const section of layout.sections.values()) {
    for (const base of placesOf(section, table)) {
      const idle = plannedKeys(section, get(table, base));
      if (idle !== undefined)
        planned.push(idle.length === 0 ? formatPath(base) : `${formatPath(base)} (${idle.join(", ")})`);
      else if (isMissingGuard(section) && get(table, [...base, "enabled"]) !== false) {
        warnings.push(
          `${formatPath(base)} is set, but the plugin ${section.specs[0]!.owner} is not loaded: it guards nothing`,
        );
      }
    }
  }
  if (planned.length > 0) {
    warnings.unshift(
      `these settings are of features that do not exist yet and have no effect: ${planned.join(", ")}`,
    );
  }
  for (const name of Object.keys(config.plugins.configs)) {
    if (layout.sections.has(`plugins.configs.${name}`)) continue;
    warnings.push(
      `${formatPath(["plugins", "configs", name])}: no plugin of that name is loaded, so its settings are not checked`,
    );
  }
  const known = new Set(plugins);
  if (known.size > 0)
    for (const section of layout.sections.values()) for (const spec of section.specs) known.add(spec.owner);
  for (const project of config.projects) {
    for (const name of config.disabled(project)) {
      if (alwaysOn.includes(name)) {
        const why = `every project needs ${alwaysOn.join(", ")}; without them its requests may find no provider`;
        warnings.push(
          `${formatPath([PROJECTS, project, "disable"])}: ${name} is always on for a reason: ${why}`,
        );
      }
      if (known.size === 0 || known.has(name)) continue;
      const near = nearest(name, known);
      const hint = near === undefined ? "" : `, did you mean ${near}?`;
      warnings.push(
        `${formatPath([PROJECTS, project, "disable"])}: there is no plugin ${formatKey(name)}${hint}`,
      );
    }
  }
  return warnings;
}

/** Where something is set in the section: at its own path, and below each project. */
function placesOf(section: Section, table: Table): string[][] {
  const projects = get(table, [PROJECTS]);
  const bases = [[...section.keys]];
  if (section.perProject && isTable(projects)) {
    for (const name of Object.keys(projects)) bases.push([PROJECTS, name, ...section.keys]);
  }
  return bases.filter((base) => Object.keys(get(table, base) ?? {}).length > 0);
}

function isMissingGuard(section: Section): boolean {
  return (
    section.specs.some((spec) => spec.guard === true) &&
    !section.specs.some((spec) => spec.loaded && spec.planned !== true)
  );
}

/**
 * Undefined where a plugin exists for all that is written; else the keys that only planned plugins know, or none of
 * them for the section as a whole.
 */
function plannedKeys(section: Section, written: unknown): string[] | undefined {
  const waiting = section.specs.filter((spec) => spec.planned === true);
  if (waiting.length === 0) return undefined;
  if (waiting.length === section.specs.length) return [];
  const existing = section.specs.filter((spec) => spec.planned !== true);
  const keys = Object.keys(isTable(written) ? written : {}).filter(
    (key) =>
      waiting.some((spec) => shapeOf(spec.schema).keys.has(key)) &&
      !existing.some((spec) => shapeOf(spec.schema).keys.has(key)),
  );
  return keys.length === 0 ? undefined : keys;
}
