import { chownSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TokenmanError } from "@tokenman/plugin-sdk";

/**
 * What `tokenman restart` asks of a running instance. It is left in the data folder, which only its user can write to,
 * before the signal: what is to be run is nothing that a network port may say.
 */
export interface RestartRequest {
  readonly id: string;
  /** The instance that is asked. */
  readonly pid: number;
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** The Node and the script to run: those of the command, which may be newer than the instance's. */
  readonly execPath: string;
  readonly entry: string;
  /** How long the new process may take to be ready, and how long requests of the old one may go on. */
  readonly timeoutMs: number;
  readonly drainMs: number;
}

export type RestartAnswer =
  | {
      readonly ok: true;
      readonly pid: number;
      readonly version: string;
      readonly proxy: string;
      readonly dashboard: string;
      /** Requests that the old process still had in flight. */
      readonly inFlight: number;
    }
  /** What a person is to read, and the code to exit with. `stopping`: the old process does not serve on either. */
  | { readonly ok: false; readonly text: string; readonly exit: number; readonly stopping?: boolean };

/** A request that was not followed by its signal must not be taken up by a later one. */
const VALID_MS = 60_000;

export function requestFile(dataDir: string): string {
  return join(dataDir, "restart.json");
}

/** Throws TM_DATA_DIR. */
export function writeRequest(dataDir: string, request: RestartRequest): void {
  try {
    put(requestFile(dataDir), { request });
  } catch (cause) {
    throw new TokenmanError(
      "TM_DATA_DIR",
      `${requestFile(dataDir)} cannot be written: ${(cause as Error).message}`,
      { cause },
    );
  }
}

/** The request to this process, which is thereby taken. Undefined where the signal came without one. */
export function takeRequest(dataDir: string): RestartRequest | undefined {
  const { request } = read(dataDir);
  if (request?.pid !== process.pid || Math.abs(Date.now() - request.at) > VALID_MS) return undefined;
  rmSync(requestFile(dataDir), { force: true });
  return request;
}

export function writeAnswer(dataDir: string, { id }: RestartRequest, answer: RestartAnswer): void {
  put(requestFile(dataDir), { id, answer });
}

/** The answer to the request `id`, which is thereby taken; undefined as long as there is none. */
export function takeAnswer(dataDir: string, id: string): RestartAnswer | undefined {
  const said = read(dataDir);
  if (said.id !== id || said.answer === undefined) return undefined;
  rmSync(requestFile(dataDir), { force: true });
  return said.answer;
}

/** Removes a request that was not taken, or an answer that came too late. */
export function withdrawRequest(dataDir: string, id: string): void {
  const said = read(dataDir);
  if (said.request?.id === id || said.id === id) rmSync(requestFile(dataDir), { force: true });
}

interface Content {
  readonly request?: RestartRequest;
  readonly id?: string;
  readonly answer?: RestartAnswer;
}

function read(dataDir: string): Content {
  try {
    return (JSON.parse(readFileSync(requestFile(dataDir), "utf8")) as Content | null) ?? {};
  } catch {
    return {};
  }
}

/** All of it at once. Where root asks, the folder's owner must be able to read it. */
function put(file: string, content: Content): void {
  const draft = `${file}.${process.pid}`;
  writeFileSync(draft, JSON.stringify(content), { mode: 0o600 });
  if (process.getuid?.() === 0) {
    const { uid, gid } = statSync(join(file, ".."));
    chownSync(draft, uid, gid);
  }
  renameSync(draft, file);
}
