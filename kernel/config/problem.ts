import { type ErrorCode, nearest, type Place, TokenmanError } from "@tokenman/plugin-sdk";
import { type Document, openDocument, type Span } from "./document.ts";
import type { EnvSetting } from "./env.ts";
import { codeFrame } from "./frame.ts";
import type { RawConfig } from "./raw.ts";
import { isNearlySecret, isSecretName, redactText } from "./secret.ts";
import { expectation, type Shape, shapeAt } from "./shape.ts";
import { formatKey, formatPath, get, isTable, quote } from "./table.ts";

/** A problem before its place is known. */
export interface Draft {
  readonly code: ErrorCode;
  readonly path: readonly PropertyKey[];
  /** Whether the key or its value is at fault. */
  readonly at: "key" | "value";
  readonly message: string;
  readonly plugin?: string;
}

/** What zod and other Standard Schema libraries report; beside `message` and `path` all is optional. */
export interface Issue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
  readonly code?: string;
  readonly keys?: readonly string[];
  readonly errors?: readonly (readonly Issue[])[];
  readonly issues?: readonly Issue[];
  readonly origin?: string;
  readonly minimum?: number;
  readonly maximum?: number;
}

/** The context in which a section's issues are worded. */
export interface IssueContext {
  /** Where the section is: ["security", "pii"], or below ["projects", NAME]. */
  readonly base: readonly PropertyKey[];
  readonly shape: Shape;
  /** What was validated. */
  readonly input: unknown;
  /** Whether the value at a full path came from the environment. */
  fromEnv(path: readonly PropertyKey[]): boolean;
}

/** The path of an issue as plain keys. */
export function issuePath(issue: Issue): PropertyKey[] {
  return (issue.path ?? []).map((part) => (typeof part === "object" ? part.key : part));
}

/** Words one issue of a schema. */
export function draftIssue(
  issue: Issue,
  context: IssueContext,
  prefix: readonly PropertyKey[] = [],
): Draft[] {
  const local = [...prefix, ...issuePath(issue)];
  const path = [...context.base, ...local];
  if (issue.code === "unrecognized_keys") {
    return (issue.keys ?? []).map((key) => unknownKey([...path, key], shapeAt(context.shape, local)));
  }
  if (issue.code === "invalid_union") {
    // A table that fits one alternative but for a few keys: those keys are the problem, not the whole.
    const close = (issue.errors ?? []).find(
      (issues) => issues.every((each) => issuePath(each).length > 0) && issues.length > 0,
    );
    if (close !== undefined) return close.flatMap((each) => draftIssue(each, context, local));
  }
  if (issue.code === "invalid_key") {
    const why = issue.issues?.[0]?.message ?? "it is not valid";
    return [
      {
        code: "TM_CONFIG_INVALID",
        path,
        at: "key",
        message: `${formatPath(path)}: the key is refused: ${why}`,
      },
    ];
  }
  const shape = shapeAt(context.shape, local);
  const value = get(context.input, local);
  const found = describe(value, path, shape, context.fromEnv(path));
  const expected = expectedOf(issue, shape);
  const message = expected.startsWith("expected ")
    ? `${expected}, found ${found}`
    : `${expected} (found ${found})`;
  return [{ code: "TM_CONFIG_INVALID", path, at: "value", message: `${formatPath(path)}: ${message}` }];
}

function expectedOf(issue: Issue, shape: Shape | undefined): string {
  const known = shape !== undefined && shape.kind !== "any";
  if (
    known &&
    (issue.code === "invalid_type" || issue.code === "invalid_value" || issue.code === "invalid_union")
  ) {
    return `expected ${expectation(shape)}`;
  }
  if (issue.code === "too_small" || issue.code === "too_big") {
    const bound = issue.code === "too_small" ? `at least ${issue.minimum}` : `at most ${issue.maximum}`;
    if (issue.origin === "string") return `expected ${bound} characters`;
    if (issue.origin === "array") return `expected ${bound} elements`;
    if (known) return `expected ${expectation(shape)}`;
  }
  return issue.message;
}

/** What was found, without showing what may be secret: nothing textual that came from the environment. */
export function describe(
  value: unknown,
  path: readonly PropertyKey[],
  shape: Shape | undefined,
  fromEnv: boolean,
): string {
  const names = path.filter((part) => typeof part === "string");
  const hidden = shape?.secret === true || names.some(isSecretName);
  switch (typeof value) {
    case "undefined":
      return "nothing";
    case "string":
      if (hidden || fromEnv) return value === "" ? "empty text" : "other text";
      // An element of a list is as secret as the list's name says.
      return quote(shorten(redactText(names.at(-1) ?? "", value)));
    case "number":
    case "boolean":
      return hidden ? `a ${typeof value}` : String(value);
    default:
      return Array.isArray(value)
        ? "a list"
        : value instanceof Date
          ? "a date"
          : isTable(value)
            ? "a table"
            : "another value";
  }
}

function shorten(text: string): string {
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}

/** An unknown key, with the nearest of the keys that its table takes. */
export function unknownKey(
  path: readonly PropertyKey[],
  parent: Shape | undefined,
  elsewhere?: string,
): Draft {
  const key = String(path.at(-1));
  const known = parent === undefined ? [] : [...keysOf(parent)];
  const near = nearest(key.toLowerCase(), known);
  const hint =
    near !== undefined
      ? `, did you mean ${formatKey(near)}?`
      : elsewhere !== undefined
        ? `; a key of that name belongs in [${elsewhere}]`
        : known.length === 0
          ? ": nothing is set here"
          : `; known here: ${known.map(formatKey).join(", ")}`;
  return {
    code: "TM_CONFIG_UNKNOWN_KEY",
    path,
    at: "key",
    message: `${formatPath(path)}: unknown key${hint}`,
  };
}

function keysOf(shape: Shape): Set<string> {
  const keys = new Set(shape.keys.keys());
  for (const option of shape.options) for (const key of keysOf(option)) keys.add(key);
  return keys;
}

/** Which variable gave the value at `path`, or something on the way to it; and how much of the path that explains. */
export function envOrigin(
  path: readonly PropertyKey[],
  settings: readonly EnvSetting[],
): EnvSetting | undefined {
  let origin: EnvSetting | undefined;
  for (const setting of settings) {
    if (setting.path.length > path.length || setting.path.some((key, index) => key !== path[index])) continue;
    const rest = path.slice(setting.path.length);
    if (rest.length === 0 || get(setting.value, rest) !== undefined) origin = setting;
  }
  return origin;
}

/** Gives each draft its place, in the file's order; problems of the environment come last. */
export async function place(
  drafts: readonly Draft[],
  raw: RawConfig,
  settings: readonly EnvSetting[],
  root: Shape,
): Promise<TokenmanError[]> {
  let document: Document | undefined;
  let source = raw.text;
  const located: { error: TokenmanError; order: number }[] = [];
  for (const draft of drafts) {
    const origin = originOf(draft.path, raw, settings);
    if (origin?.variable !== undefined) {
      located.push({ error: toError(draft, { file: origin.variable }), order: Number.POSITIVE_INFINITY });
      continue;
    }
    if (raw.file === undefined) {
      located.push({ error: toError(draft, undefined), order: Number.POSITIVE_INFINITY });
      continue;
    }
    if (document === undefined && raw.text !== "") {
      document = await openDocument(raw.text);
      source = starSecrets(raw.text, document, root);
    }
    // What is missing is shown at the table it is missing from.
    const whole = origin?.path.length === draft.path.length;
    const path = origin?.path ?? [];
    const span = draft.at === "key" || !whole ? document?.keySpan(path) : document?.valueSpan(path);
    located.push({ error: toError(draft, spanPlace(span, raw.file, source)), order: span?.start ?? -1 });
  }
  return located.sort((left, right) => left.order - right.order || 0).map(({ error }) => error);
}

interface Origin {
  readonly path: readonly PropertyKey[];
  readonly variable?: string;
}

/** The nearest written thing at or above `path`. */
function originOf(
  path: readonly PropertyKey[],
  raw: RawConfig,
  settings: readonly EnvSetting[],
): Origin | undefined {
  for (let length = path.length; length > 0; length--) {
    const prefix = path.slice(0, length);
    const setting = envOrigin(prefix, settings);
    if (setting !== undefined) return { path: prefix, variable: setting.variable };
    if (get(raw.table, prefix) !== undefined) return { path: prefix };
  }
  return undefined;
}

function spanPlace(span: Span | undefined, file: string, source: string): Place {
  if (span === undefined) return { file };
  const frame = codeFrame(source, span.line, span.column, span.end - span.start);
  return { file, line: span.line, column: span.column, frame };
}

/**
 * Overwrites the secrets' characters, so that columns stay; what only a schema knows to be secret as well, and what
 * stands under an unknown key that is probably a secret's, misspelt.
 */
function starSecrets(text: string, document: Document, root: Shape): string {
  const isSecret = (part: PropertyKey, index: number, path: readonly PropertyKey[]) => {
    if (isSecretName(String(part))) return true;
    const shape = shapeAt(root, path.slice(0, index + 1));
    if (shape !== undefined || typeof part !== "string") return shape?.secret === true;
    const parent = shapeAt(root, path.slice(0, index));
    if (parent === undefined) return isNearlySecret(part);
    const known = keysOf(parent);
    const meant = nearest(part.toLowerCase(), known);
    return isNearlySecret(part, known) || (meant !== undefined && shapeAt(parent, [meant])?.secret === true);
  };
  let source = text;
  for (const { path, node } of document.assignments) {
    // What stands below a secret key is secret too, wrong as it may be there.
    if (!path.some(isSecret)) continue;
    const [start, end] = node.value.range;
    source = source.slice(0, start) + source.slice(start, end).replace(/[^\r\n]/g, "*") + source.slice(end);
  }
  return source;
}

function toError(draft: Draft, at: Place | undefined): TokenmanError {
  return new TokenmanError(draft.code, draft.message, {
    configPath: draft.path.map(String),
    ...(at !== undefined && { place: at }),
    ...(draft.plugin !== undefined && { plugin: draft.plugin }),
  });
}
