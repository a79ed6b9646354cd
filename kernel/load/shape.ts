import { API_VERSION, PLUGIN_STAMP, type Plugin, STAGES, TokenmanError } from "@tokenman/plugin-sdk";

const NAME = /^[a-z][a-z0-9]*(-[a-z0-9]+)*$/;

/**
 * The plugin that a module exports, as `export default`, or as `module.exports` itself. `source` is the file or
 * "built in"; `hint` ends the message where it is no plugin at all. Throws TM_PLUGIN_SHAPE, naming everything that is
 * wrong, and TM_PLUGIN_API_VERSION.
 */
export function pluginOf(exported: unknown, source: string, hint = ""): Plugin {
  const place = { place: { file: source } };
  const found = isRecord(exported) && "default" in exported ? exported.default : exported;
  if (!isRecord(found) || !(PLUGIN_STAMP in found)) {
    const isMeant = isRecord(found) && "setup" in found;
    const message = `expected the default export to be a plugin made by definePlugin(…); found ${whatIs(found, exported)}${isMeant ? "" : hint}`;
    throw new TokenmanError("TM_PLUGIN_SHAPE", message, place);
  }
  // Before the other fields: what is right for a newer API may look wrong to this one.
  const { apiVersion } = found;
  if (typeof apiVersion === "number" && apiVersion > API_VERSION) {
    const message = `plugin "${found.name}" is written for plugin API ${apiVersion}; this TokenMan has ${API_VERSION}: update TokenMan`;
    throw new TokenmanError("TM_PLUGIN_API_VERSION", message, place);
  }
  const faults = [...faultsOf(found)];
  if (faults.length > 0) {
    const name = typeof found.name === "string" ? ` "${found.name}"` : "";
    throw new TokenmanError("TM_PLUGIN_SHAPE", `plugin${name}: ${faults.join("; ")}`, place);
  }
  return found as unknown as Plugin;
}

function* faultsOf(found: Readonly<Record<string, unknown>>): Generator<string> {
  const { name, version, apiVersion, setup, section, stage, onError, configSchema } = found;
  if (typeof name !== "string" || !NAME.test(name)) {
    yield `name: expected lower-case words joined by dashes, found ${show(name)}`;
  }
  if (typeof version !== "string" || version === "")
    yield `version: expected a string, found ${show(version)}`;
  if (!Number.isInteger(apiVersion) || (apiVersion as number) < 1) {
    yield `apiVersion: expected ${API_VERSION}, found ${show(apiVersion)}`;
  }
  if (typeof setup !== "function") yield `setup: expected a function, found ${show(setup)}`;
  if (section !== undefined && (typeof section !== "string" || section === "")) {
    yield `section: expected a dotted name like "security.pii", found ${show(section)}`;
  }
  if (stage !== undefined && !STAGES.includes(stage as never)) {
    yield `stage: expected one of ${STAGES.join(", ")}, found ${show(stage)}`;
  }
  if (onError !== undefined && onError !== "open" && onError !== "closed") {
    yield `onError: expected "open" or "closed", found ${show(onError)}`;
  }
  if (configSchema !== undefined && !(isRecord(configSchema) && "~standard" in configSchema)) {
    yield `configSchema: expected a zod or Standard Schema, found ${show(configSchema)}`;
  }
  yield* timeoutFaults(found.timeouts);
  if (found.needs !== undefined && !isRecord(found.needs))
    yield `needs: expected an object of tokens, found ${show(found.needs)}`;
  for (const [key, need] of Object.entries(isRecord(found.needs) ? found.needs : {})) {
    const token = isRecord(need) && "optional" in need ? need.optional : need;
    if (!isToken(token)) yield `needs.${key}: expected a service token, found ${show(token)}`;
  }
  for (const list of ["provides", "commands"] as const) {
    const value = found[list];
    if (value !== undefined && !Array.isArray(value))
      yield `${list}: expected an array, found ${show(value)}`;
  }
  for (const [index, token] of (Array.isArray(found.provides) ? found.provides : []).entries()) {
    if (!isToken(token)) yield `provides[${index}]: expected a service token, found ${show(token)}`;
  }
}

function* timeoutFaults(timeouts: unknown): Generator<string> {
  if (timeouts === undefined) return;
  if (!isRecord(timeouts)) {
    yield `timeouts: expected { setupMs, hookMs }, found ${show(timeouts)}`;
    return;
  }
  for (const [key, value] of Object.entries(timeouts)) {
    if (key !== "setupMs" && key !== "hookMs") yield `timeouts.${key}: not known; expected setupMs or hookMs`;
    else if (value !== undefined && !(typeof value === "number" && value > 0)) {
      yield `timeouts.${key}: expected milliseconds above 0, found ${show(value)}`;
    }
  }
}

function isToken(value: unknown): boolean {
  return isRecord(value) && typeof value.name === "string" && typeof value.major === "number";
}

/** zod schemas are objects, schemas of other libraries may be functions. */
function isRecord(value: unknown): value is Record<string, unknown> {
  return (typeof value === "object" && value !== null) || typeof value === "function";
}

function whatIs(found: unknown, exported: unknown): string {
  if (!isRecord(exported)) return show(exported);
  if (!("default" in exported)) {
    const names = Object.keys(exported).filter((key) => key !== "__esModule");
    return names.length === 0
      ? "a module that exports nothing"
      : `no default export, only: ${names.join(", ")}`;
  }
  if (isRecord(found) && typeof found !== "function") {
    return `an object with ${Object.keys(found).join(", ") || "no fields"} that did not go through definePlugin`;
  }
  return show(found);
}

function show(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "function") return "a function";
  if (typeof value === "string" || typeof value === "number" || typeof value === "boolean")
    return JSON.stringify(value);
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : "an object";
}
