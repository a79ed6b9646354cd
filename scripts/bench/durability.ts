/**
 * `node scripts/bench/durability.ts [ROUNDS]`: kills a TokenMan under load with SIGKILL, again and again, and holds its
 * ledger to what it promises. Whatever a client had in full 200 ms before is there, whatever was sent upstream 200 ms
 * before is there or interrupted, nothing was sent without its row and its reservation, and no acknowledged settlement is lost.
 */
import { type ChildProcess, fork } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { verify } from "../../plugins/store/verify.ts";
import { type FromChild, RESERVED, SPENT } from "./durability-child.ts";

const SESSION = "x-claude-code-session-id";
const CLIENTS = 16;

/** One request, by its session. Times are of the parent's monotonic clock. */
interface Seen {
  sentUpstreamAt: number | undefined;
  deliveredAt: number | undefined;
}

export interface DurabilityResult {
  readonly rounds: number;
  readonly requests: number;
  readonly delivered: number;
  readonly interrupted: number;
  readonly settled: number;
  readonly problems: readonly string[];
}

export interface DurabilityOptions {
  /** How old something is that must be there. The promise is 200 ms; on a busy machine the parent's own clock is late. */
  readonly graceMs?: number;
  readonly say?: (line: string) => void;
}

export async function durability(
  rounds: number,
  { graceMs = 200, say = () => {} }: DurabilityOptions = {},
): Promise<DurabilityResult> {
  const folder = mkdtempSync(join(tmpdir(), "durability-"));
  const seen = new Map<string, Seen>();
  const settled = new Set<string>();
  const problems: string[] = [];
  const killedAt: number[] = [];
  const roundOf = new Map<string, number>();
  const upstream = await startUpstream(seen);
  const configFile = join(folder, "tokenman.toml");
  const dataDir = join(folder, "data");
  mkdirSync(dataDir);
  const { port } = upstream.address() as AddressInfo;
  writeFileSync(
    configFile,
    `[server]\nproxy_port = 0\ndashboard_port = 0\ndata_dir = ${JSON.stringify(dataDir)}
[providers.anthropic]\napi_base = "http://127.0.0.1:${port}"\nauth = "client"\n`,
  );
  try {
    for (let round = 0; round < rounds; round++) {
      const child = await startChild(configFile, settled);
      const stop = new AbortController();
      const clients = Array.from({ length: CLIENTS }, () =>
        keepAsking(child.proxy, seen, (session) => roundOf.set(session, round), stop.signal),
      );
      await delay(2 * graceMs + randomInt(0, 800));
      killedAt[round] = performance.now();
      child.process.kill("SIGKILL");
      await child.gone;
      stop.abort();
      await Promise.all(clients);
      say(`round ${round + 1}: ${seen.size} requests so far`);
    }
    // The next start marks what the last one left open.
    const last = await startChild(configFile, settled);
    const file = join(dataDir, "ledger.db");
    while (leftOpen(file) > 0) await delay(20);
    last.process.kill("SIGKILL");
    await last.gone;
    return check(file, { seen, settled, killedAt, roundOf, rounds, problems, graceMs });
  } finally {
    upstream.close();
    upstream.closeAllConnections();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What is left of dead processes: rows that are open, and allowances of a budget. */
function leftOpen(file: string): number {
  const db = new DatabaseSync(file, { readOnly: true, timeout: 5_000 });
  try {
    const query =
      "SELECT (SELECT count(*) FROM request WHERE outcome = 0) + (SELECT count(*) FROM holder) AS n";
    return Number(db.prepare(query).get()?.["n"]);
  } finally {
    db.close();
  }
}

interface Evidence {
  readonly seen: ReadonlyMap<string, Seen>;
  readonly settled: ReadonlySet<string>;
  readonly killedAt: readonly number[];
  readonly roundOf: ReadonlyMap<string, number>;
  readonly rounds: number;
  readonly problems: string[];
  readonly graceMs: number;
}

function check(
  file: string,
  { seen, settled, killedAt, roundOf, rounds, problems, graceMs }: Evidence,
): DurabilityResult {
  const db = new DatabaseSync(file, { timeout: 5_000 });
  try {
    problems.push(...verify(db));
    const rows = new Map(
      db
        .prepare(
          `SELECT text.value AS session, outcome, output FROM request JOIN text ON text.id = request.session`,
        )
        .all()
        .map((row) => [String(row["session"]), row]),
    );
    /** Reservations that a process had open when it was killed: they stay spent. */
    const left = new Set(
      db
        .prepare("SELECT id FROM reservation")
        .all()
        .map(({ id }) => String(id)),
    );
    let delivered = 0;
    let interrupted = 0;
    for (const [session, { sentUpstreamAt, deliveredAt }] of seen) {
      const killed = killedAt[roundOf.get(session)!]!;
      const row = rows.get(session);
      const outcome = Number(row?.["outcome"] ?? -1);
      if (outcome === 6) interrupted++;
      if (deliveredAt !== undefined && deliveredAt < killed - graceMs) {
        delivered++;
        if (outcome !== 1 || row?.["output"] === null)
          problems.push(
            `${session} was delivered ${Math.round(killed - deliveredAt)} ms before, and has outcome ${outcome}`,
          );
      } else if (sentUpstreamAt !== undefined && sentUpstreamAt < killed - graceMs && outcome <= 0) {
        problems.push(
          `${session} was sent ${Math.round(killed - sentUpstreamAt)} ms before, and has outcome ${outcome}`,
        );
      }
      if (sentUpstreamAt !== undefined && row === undefined)
        problems.push(`${session} was sent upstream without its row`);
    }
    for (const id of settled) if (left.has(id)) problems.push(`${id} was settled, and is not`);
    // What is not left open is settled, and every request that was sent is one or the other.
    const used = Number(db.prepare("SELECT used FROM budget_window WHERE scope = 'total'").get()?.["used"]);
    const closed = (used - left.size * RESERVED) / SPENT;
    const sent = [...seen.values()].filter((each) => each.sentUpstreamAt !== undefined).length;
    const atLeast = Math.max(settled.size, sent - left.size);
    const atMost = rows.size - left.size;
    if (!Number.isInteger(closed) || closed < atLeast || closed > atMost)
      problems.push(
        `the window says ${used}: with ${left.size} open that is ${closed} settled, not ${atLeast} to ${atMost}`,
      );
    return { rounds, requests: seen.size, delivered, interrupted, settled: settled.size, problems };
  } finally {
    db.close();
  }
}

interface RunningChild {
  readonly process: ChildProcess;
  readonly proxy: string;
  readonly gone: Promise<void>;
}

async function startChild(configFile: string, settled: Set<string>): Promise<RunningChild> {
  const child = fork(join(import.meta.dirname, "durability-child.ts"), [configFile], { execArgv: [] });
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const proxy = await new Promise<string>((resolve, reject) => {
    child.once("exit", () => reject(new Error("the child ended before it was ready")));
    child.on("message", (message: FromChild) => {
      if (message.kind === "ready") resolve(message.proxy);
      else if (message.kind === "settled") settled.add(message.id);
      else reject(new Error(message.reason));
    });
  });
  return { process: child, proxy, gone };
}

/** Streams of up to half a second, each told apart by the session id that the client sends along. */
async function startUpstream(seen: Map<string, Seen>): Promise<Server> {
  const server = createServer((request, response) => {
    const entry = seen.get(String(request.headers[SESSION]));
    if (entry !== undefined) entry.sentUpstreamAt = performance.now();
    request.resume();
    request.on("end", async () => {
      const event = (name: string, data: object): string =>
        `event: ${name}\ndata: ${JSON.stringify({ type: name, ...data })}\n\n`;
      response.writeHead(200, { "content-type": "text/event-stream" });
      const usage = { input_tokens: 10, output_tokens: 1 };
      response.write(
        event("message_start", {
          message: { id: "m", model: "test", role: "assistant", content: [], usage },
        }),
      );
      await delay(randomInt(0, 500));
      response.write(
        event("message_delta", { delta: { stop_reason: "end_turn" }, usage: { output_tokens: 5 } }),
      );
      response.end(event("message_stop", {}));
    });
    response.on("error", () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  return server;
}

async function keepAsking(
  proxy: string,
  seen: Map<string, Seen>,
  begins: (session: string) => void,
  stop: AbortSignal,
): Promise<void> {
  while (!stop.aborted) {
    const session = randomBytes(8).toString("hex");
    const entry: Seen = { sentUpstreamAt: undefined, deliveredAt: undefined };
    seen.set(session, entry);
    begins(session);
    try {
      const reply = await fetch(`${proxy}/v1/messages`, {
        method: "POST",
        headers: { "content-type": "application/json", "x-api-key": "sk-ant-test", [SESSION]: session },
        body: JSON.stringify({
          model: "test",
          max_tokens: 5,
          stream: true,
          messages: [{ role: "user", content: "hi" }],
        }),
        signal: stop,
      });
      const text = await reply.text();
      if (reply.status === 200 && text.includes("message_stop")) entry.deliveredAt = performance.now();
    } catch {
      // It was killed.
      return;
    }
  }
}

if (import.meta.main) {
  const rounds = Number(process.argv[2] ?? 50);
  const result = await durability(rounds, { say: (line) => console.log(line) });
  console.log({ ...result, problems: result.problems.slice(0, 20) });
  process.exitCode = result.problems.length === 0 ? 0 : 1;
}
