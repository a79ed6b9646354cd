/**
 * Every error TokenMan throws or answers with, in one place. `status` is the HTTP status where the code reaches a
 * client, `exit` the process's exit code where it ends a command (sysexits: 64 usage, 69 unavailable, 70 internal,
 * 73 can't create, 78 configuration). `docs/errors.md` explains each; a test keeps the two together.
 */
export const ERRORS = {
  // Requests.
  TM_BAD_REQUEST: { status: 400, exit: 70, says: "the request is not well-formed HTTP for this proxy" },
  TM_HOST_REFUSED: { status: 403, exit: 70, says: "the Host header names no address TokenMan serves" },
  TM_ORIGIN_REFUSED: { status: 403, exit: 70, says: "a web page of another origin may not do this" },
  TM_UNAUTHORIZED: { status: 401, exit: 77, says: "the TokenMan token is missing or wrong" },
  TM_BAD_QUERY: { status: 400, exit: 64, says: "a query parameter is not what the path takes" },
  TM_NOT_FOUND: { status: 404, exit: 70, says: "no such path" },
  TM_METHOD_NOT_ALLOWED: { status: 405, exit: 70, says: "the path exists, but not with this method" },
  TM_BODY_TOO_LARGE: { status: 413, exit: 70, says: "the request body is over server.max_body_size" },
  TM_BODY_TIMEOUT: { status: 408, exit: 70, says: "the request body stalled" },
  TM_BODY_ENCODING: {
    status: 400,
    exit: 70,
    says: "the request body does not decode with its Content-Encoding",
  },
  TM_UPGRADE_REQUIRED: { status: 426, exit: 70, says: "WebSocket is not spoken here; use HTTP" },
  TM_TOO_MANY_CONNECTIONS: { status: 503, exit: 70, says: "the connection limit is reached" },
  TM_SHUTTING_DOWN: { status: 503, exit: 70, says: "TokenMan is shutting down" },
  // Routing and upstreams.
  TM_NO_PROVIDER: { status: 404, exit: 70, says: "no configured provider can serve the request" },
  TM_NO_CREDENTIAL: {
    status: 401,
    exit: 70,
    says: "every provider that could serve the request lacks a key",
  },
  TM_KEY_UNAVAILABLE: { status: 502, exit: 78, says: "a key_ref could not be resolved" },
  TM_ALL_SKIPPED: { status: 503, exit: 70, says: "every candidate was skipped before dispatch" },
  TM_UPSTREAM_CONNECT: { status: 502, exit: 70, says: "the provider could not be reached" },
  TM_UPSTREAM_CONNECT_TIMEOUT: { status: 504, exit: 70, says: "the provider could not be reached in time" },
  TM_UPSTREAM_BUSY: { status: 503, exit: 70, says: "all connections to the provider were in use" },
  TM_UPSTREAM_PROXY: { status: 502, exit: 70, says: "the proxy on the way to the provider refused" },
  TM_UPSTREAM_TLS: { status: 502, exit: 70, says: "the provider's TLS certificate was refused" },
  TM_UPSTREAM_RESET: { status: 502, exit: 70, says: "the provider closed the connection before answering" },
  TM_UPSTREAM_PROTOCOL: { status: 502, exit: 70, says: "the provider's answer is not HTTP" },
  TM_UPSTREAM_TIMEOUT: { status: 504, exit: 70, says: "the provider did not answer in time" },
  TM_UPSTREAM_DEADLINE: { status: 504, exit: 70, says: "the provider did not finish in time" },
  TM_UPSTREAM_CUT: { status: 502, exit: 70, says: "the provider broke off its answer" },
  TM_UPSTREAM_IDLE: { status: 504, exit: 70, says: "the provider's stream fell silent for too long" },
  TM_REPLY_TOO_LARGE: {
    status: 502,
    exit: 70,
    says: "a reply that must be inspected is over server.max_response_size",
  },
  TM_REPLY_STREAMING: { status: 500, exit: 70, says: "a streamed reply was read as a whole" },
  TM_CLIENT_STALLED: { status: 499, exit: 70, says: "the client stopped reading" },
  TM_CLIENT_GONE: { status: 499, exit: 70, says: "the client left" },
  TM_NOT_CACHED: { status: 504, exit: 70, says: "no stored answer, and the client wants no other" },
  TM_SESSION_UNKNOWN: {
    status: 404,
    exit: 70,
    says: "no open stream session has that id, or another credential's has",
  },
  TM_SESSION_BUSY: { status: 409, exit: 70, says: "the stream session's reply is still on its way" },
  TM_SESSION_LIMIT: {
    status: 429,
    exit: 70,
    says: "as many stream sessions are open as server.max_stream_sessions allows",
  },
  TM_SESSION_REPLY: {
    status: 502,
    exit: 70,
    says: "the provider's reply cannot be kept in a stream session's conversation",
  },
  TM_INTERNAL: { status: 500, exit: 70, says: "an error inside TokenMan" },
  // Plugins at run time.
  TM_PLUGIN_FAILED: { status: 500, exit: 70, says: "a plugin that must not fail did" },
  TM_PLUGIN_TIMEOUT: { status: 500, exit: 70, says: "a plugin's hook did not end in time" },
  TM_PLUGIN_RESULT: {
    status: 500,
    exit: 70,
    says: "a plugin's hook returned something that is not what the hook takes",
  },
  TM_SEGMENT_SEALED: { status: 500, exit: 70, says: "a plugin edited signed content" },
  TM_EDIT_CONFLICT: { status: 500, exit: 70, says: "two edits of the request contradict each other" },
  TM_EDIT_IMPOSSIBLE: {
    status: 500,
    exit: 70,
    says: "an edit points at nothing, or the body is not editable JSON",
  },
  // Configuration and loading.
  TM_CONFIG_SYNTAX: { status: 500, exit: 78, says: "the config file is not TOML" },
  TM_CONFIG_UNREADABLE: { status: 500, exit: 78, says: "the config file cannot be read" },
  TM_CONFIG_UNKNOWN_KEY: { status: 500, exit: 78, says: "a config key is not known" },
  TM_CONFIG_INVALID: { status: 500, exit: 78, says: "a config value is not what its key takes" },
  TM_CONFIG_OPEN_BIND: { status: 500, exit: 78, says: "a non-loopback bind address without [auth]" },
  TM_GUARD_MISSING: { status: 500, exit: 78, says: "a guard is enabled but no plugin provides it" },
  TM_PLUGIN_NOT_FOUND: { status: 500, exit: 78, says: "no plugin of that name or path" },
  TM_PLUGIN_OUTSIDE: { status: 500, exit: 78, says: "a plugin path leads outside the allowed folders" },
  TM_PLUGIN_WRITABLE: {
    status: 500,
    exit: 78,
    says: "any user of the machine could replace a plugin's source",
  },
  TM_PLUGIN_COMPILE: { status: 500, exit: 78, says: "a plugin's source does not compile" },
  TM_PLUGIN_LOAD: { status: 500, exit: 78, says: "a plugin's module failed while it was loaded" },
  TM_PLUGIN_SHAPE: { status: 500, exit: 78, says: "a module's default export is not a plugin" },
  TM_PLUGIN_API_VERSION: { status: 500, exit: 78, says: "a plugin was written for a newer plugin API" },
  TM_PLUGIN_DUPLICATE: { status: 500, exit: 78, says: "two plugins have the same name" },
  TM_PLUGIN_SETUP: { status: 500, exit: 78, says: "a plugin's setup failed" },
  TM_SERVICE_MISSING: {
    status: 500,
    exit: 78,
    says: "a plugin needs a service that no loaded plugin provides",
  },
  TM_SERVICE_DUPLICATE: { status: 500, exit: 78, says: "two plugins provide the same service" },
  TM_SERVICE_CYCLE: { status: 500, exit: 78, says: "plugins need each other's services in a circle" },
  TM_CONTRIBUTION_DUPLICATE: { status: 500, exit: 78, says: "two plugins contribute the same thing" },
  // Limits.
  TM_BUDGET_EXCEEDED: { status: 429, exit: 70, says: "a budget has no room for the request" },
  TM_BUDGET_UNAVAILABLE: {
    status: 503,
    exit: 70,
    says: "the budget cannot be kept at present, so nothing is spent",
  },
  TM_BUDGET_UNPRICED: {
    status: 403,
    exit: 70,
    says: "the request has no known price, and is blocked for it",
  },
  TM_RATE_LIMITED: { status: 429, exit: 70, says: "a rate limit has no room for the request" },
  // The ledger.
  TM_LEDGER_SCHEMA: {
    status: 500,
    exit: 78,
    says: "the ledger was written by a newer TokenMan, or is another program's database",
  },
  TM_LEDGER_UNAVAILABLE: { status: 503, exit: 73, says: "the ledger cannot be written at present" },
  TM_LEDGER_DAMAGED: { status: 500, exit: 65, says: "the ledger's file is damaged" },
  TM_LEDGER_QUERY: { status: 400, exit: 64, says: "a question to the ledger makes no sense" },
  TM_LEDGER_TIMEOUT: { status: 503, exit: 70, says: "a question to the ledger took too long" },
  // Process and CLI.
  TM_PORT_IN_USE: { status: 500, exit: 69, says: "a port is already in use" },
  TM_LISTEN: { status: 500, exit: 69, says: "a listening socket could not be opened" },
  TM_DATA_DIR: { status: 500, exit: 73, says: "the data folder cannot be used" },
  TM_ALREADY_RUNNING: { status: 500, exit: 69, says: "a TokenMan with this data folder is running already" },
  TM_NOT_RUNNING: { status: 500, exit: 69, says: "no TokenMan with this data folder is running" },
  TM_START_TIMEOUT: { status: 500, exit: 69, says: "TokenMan did not become ready in time" },
  TM_USAGE: { status: 500, exit: 64, says: "the command line is not understood" },
} as const satisfies Readonly<Record<string, { status: number; exit: number; says: string }>>;

export type ErrorCode = keyof typeof ERRORS;

/** Where in a file a problem is; lines and columns count from 1. */
export interface Place {
  readonly file: string;
  readonly line?: number;
  readonly column?: number;
  /** The source around it, ready to print. */
  readonly frame?: string;
}

export interface TokenmanErrorOptions {
  readonly cause?: unknown;
  readonly place?: Place;
  readonly plugin?: string;
  readonly hook?: string;
  /** The key of the config that is at fault, from its top: the kernel finds its place in the file. */
  readonly configPath?: readonly string[];
}

/** An error of the catalogue. `message` may name internals; what a client sees is made by the dialect. */
export class TokenmanError extends Error {
  readonly code: ErrorCode;
  readonly place: Place | undefined;
  readonly plugin: string | undefined;
  readonly hook: string | undefined;
  readonly configPath: readonly string[] | undefined;

  constructor(code: ErrorCode, message?: string, options: TokenmanErrorOptions = {}) {
    super(message ?? ERRORS[code].says, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "TokenmanError";
    this.code = code;
    this.place = options.place;
    this.plugin = options.plugin;
    this.hook = options.hook;
    this.configPath = options.configPath;
  }

  get status(): number {
    return ERRORS[this.code].status;
  }
  get exit(): number {
    return ERRORS[this.code].exit;
  }
  /** "file:line:column: CODE message" with the code frame below, as printed by the CLI and the log. */
  describe(): string {
    const at = this.place === undefined ? "" : `${formatPlace(this.place)}: `;
    const frame = this.place?.frame === undefined ? "" : `\n${this.place.frame}`;
    return `${at}${this.code} ${this.message}${frame}`;
  }
}

/** Several problems found at once (configuration, loading). `message` lists all of them. */
export class TokenmanErrors extends Error {
  readonly errors: readonly TokenmanError[];
  constructor(errors: readonly TokenmanError[]) {
    super(errors.map((error) => error.describe()).join("\n"));
    this.name = "TokenmanErrors";
    this.errors = errors;
  }
  get exit(): number {
    return this.errors[0]?.exit ?? 70;
  }
}

/** "file", "file:line" or "file:line:column". */
export function formatPlace(place: Place): string {
  const line = place.line === undefined ? "" : `:${place.line}`;
  const column = place.line === undefined || place.column === undefined ? "" : `:${place.column}`;
  return `${place.file}${line}${column}`;
}

/** The nearest of `known` to `found` by edit distance, or undefined where none is near. */
export function nearest(found: string, known: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(found.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(found, candidate, bestDistance);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

function editDistance(left: string, right: string, limit: number): number {
  if (Math.abs(left.length - right.length) >= limit) return limit;
  let previous = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let row = 1; row <= left.length; row++) {
    const current = [row];
    for (let column = 1; column <= right.length; column++) {
      const substitution = previous[column - 1]! + (left[row - 1] === right[column - 1] ? 0 : 1);
      current.push(Math.min(substitution, previous[column]! + 1, current[column - 1]! + 1));
    }
    previous = current;
  }
  return previous[right.length]!;
}
