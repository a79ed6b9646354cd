/**
 * Steady traffic, a process of its own: so many requests a second, whenever they are answered, until it is told to stop.
 * Forked by ledger.ts; takes one order, answers with counts.
 */
import { setTimeout as delay } from "node:timers/promises";
import { Agent } from "undici";
import { benchBody, writeNonce } from "./bodies.ts";
import { BUFFERED, PATHS } from "./replies.ts";

export interface SteadyOrder {
  port: number;
  /** Requests a second. */
  rate: number;
  /** Names that take turns. */
  projects: readonly string[];
}
export interface SteadyResult {
  sent: number;
  failed: number;
  /** The first few reasons. */
  reasons: string[];
  seconds: number;
}

const TICK_MS = 5;

async function run({ port, rate, projects }: SteadyOrder, stopped: () => boolean): Promise<SteadyResult> {
  const agent = new Agent({ connections: 64, allowH2: false });
  const { bytes, nonceAt } = benchBody("openai", 2_048, BUFFERED);
  const reasons = new Set<string>();
  const open = new Set<Promise<void>>();
  const began = performance.now();
  let nonce = Date.now() * 1_000;
  let sent = 0;
  let failed = 0;
  const one = async (): Promise<void> => {
    const body = Buffer.from(bytes);
    writeNonce(body, nonceAt, nonce++);
    try {
      const reply = await agent.request({
        origin: `http://127.0.0.1:${port}`,
        path: PATHS.openai,
        method: "POST",
        headers: {
          "content-type": "application/json",
          authorization: "Bearer sk-bench-0123456789abcdef0123456789abcdef",
          "x-tokenman-project": projects[sent % projects.length] ?? "default",
        },
        body,
      });
      await reply.body.dump();
      if (reply.statusCode !== 200) throw new Error(`status ${reply.statusCode}`);
    } catch (error) {
      failed++;
      if (reasons.size < 5) reasons.add(error instanceof Error ? error.message : String(error));
    }
  };
  while (!stopped()) {
    const due = Math.floor(((performance.now() - began) / 1_000) * rate);
    for (; sent < due; sent++) {
      const asked = one().finally(() => open.delete(asked));
      open.add(asked);
    }
    await delay(TICK_MS);
  }
  const seconds = (performance.now() - began) / 1_000;
  await Promise.all(open);
  await agent.close();
  return { sent, failed, reasons: [...reasons], seconds };
}

if (process.send !== undefined && import.meta.main) {
  let isOver = false;
  process.on("message", (message: SteadyOrder | "stop") => {
    if (message === "stop") isOver = true;
    else void run(message, () => isOver).then((result) => process.send?.(result));
  });
  process.on("disconnect", () => process.exit(0));
}
