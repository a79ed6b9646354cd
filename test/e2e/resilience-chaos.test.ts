import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  errorEvent,
  faults,
  Random,
  recordingUpstream,
  type Script,
  streamReply,
} from "@tokenman/plugin-sdk/testkit";
import { startTokenman } from "../support/kernel.ts";

const REQUESTS = 240;
const AT_ONCE = 16;
const WHOLE = streamReply("anthropic-messages", ["Hello ", "there."]);
const SSE = ["Content-Type", "text/event-stream"];
const BODY = Buffer.from(WHOLE.body as Uint8Array);

/** What a provider may do to a request: whether its answer had begun, and whether it was whole. */
const DOINGS: Readonly<Record<string, { readonly begun: boolean; readonly script: Script }>> = {
  fine: { begun: true, script: faults.status(200, { headers: SSE, body: BODY }) },
  overloaded: { begun: false, script: faults.status(529, { headers: ["retry-after-ms", "1"] }) },
  limited: {
    begun: false,
    script: faults.status(429, { headers: ["retry-after", "Mon, 01 Jan 2024 00:00:00 GMT"] }),
  },
  broken: {
    begun: false,
    script: faults.status(502, { headers: ["content-type", "text/html"], body: "<html>" }),
  },
  reset: { begun: false, script: faults.reset() },
  "first event": {
    begun: false,
    script: faults.status(200, { headers: SSE, body: errorEvent("anthropic-messages") }),
  },
  cut: { begun: true, script: faults.cutAfter(BODY.indexOf("there."), { reply: WHOLE }) },
};

describe("three providers with bad luck", () => {
  for (const seed of [1, Math.floor(Math.random() * 2 ** 31)]) {
    it(`lose no request that any of four attempts could save: seed ${seed}`, {
      timeout: 60_000,
    }, async () => {
      const random = new Random(seed);
      const done = new Map<string, string[]>();
      const script: Script = async (call) => {
        await call.received;
        const { id } = (call.request.json() as { metadata: { id: string } }).metadata;
        const doing = random.chance(0.3) ? "fine" : random.pick(Object.keys(DOINGS));
        done.set(id, [...(done.get(id) ?? []), doing]);
        await DOINGS[doing]!.script(call);
      };
      const farm = await Promise.all([0, 1, 2].map(() => recordingUpstream({ script })));
      const providers = farm.map(({ url }, index) => {
        const name = index === 0 ? "anthropic" : `spare-${index}`;
        return `[providers.${name}]\napi_base = "${url}"\nformat = "anthropic"\nauth = "none"\npriority = ${index}\n`;
      });
      const tokenman = await startTokenman({
        also: ["retry", "breaker"],
        config: `${providers.join("\n")}\n[resilience]\nretry_base_delay_ms = 2\nretry_budget = 10\ncircuit_breaker_enabled = false\n`,
      });
      const ask = async (id: string): Promise<string> => {
        const response = await fetch(`${tokenman.proxy}/v1/messages`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({
            model: "claude-x",
            max_tokens: 9,
            stream: true,
            metadata: { id },
            messages: [{ role: "user", content: "hi" }],
          }),
        });
        try {
          const text = await response.text();
          if (response.status !== 200) return "failed";
          return text === BODY.toString() ? "whole" : "error event";
        } catch {
          return "broken";
        }
      };
      try {
        let next = 0;
        const outcomes = new Map<string, string>();
        const work = async (): Promise<void> => {
          while (next < REQUESTS) {
            const id = String(next++);
            outcomes.set(id, await ask(id));
          }
        };
        await Promise.all(Array.from({ length: AT_ONCE }, work));
        assert.equal(outcomes.size, REQUESTS, "every request ends");
        assert.deepEqual(new Set([...done.values()].flat()), new Set(Object.keys(DOINGS)));
        for (const [id, outcome] of outcomes) {
          const doings = done.get(id)!;
          const said = `request ${id}: ${doings.join(", ")}: ${outcome}`;
          // A reset on a connection that was used before is tried once more by the kernel, within the attempt.
          assert.ok(doings.filter((doing) => doing !== "reset").length <= 4 && doings.length <= 8, said);
          assert.equal(
            doings.slice(0, -1).some((doing) => DOINGS[doing]!.begun),
            false,
            said,
          );
          const last = doings.at(-1)!;
          if (last === "fine") assert.equal(outcome, "whole", said);
          else if (last === "cut") assert.equal(outcome, "broken", said);
          else assert.ok(doings.length >= 4 && (outcome === "failed" || outcome === "error event"), said);
        }
      } finally {
        await tokenman.stop();
        for (const upstream of farm) await upstream.stop();
      }
    });
  }
});
