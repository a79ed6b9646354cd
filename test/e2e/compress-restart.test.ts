import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  assertPrefixStable,
  providersAt,
  recordingUpstream,
  requestProblems,
  rewriteProblems,
  type Turn,
} from "@tokenman/plugin-sdk/testkit";
import { planAnthropic } from "../../plugins/mock/anthropic-cache.ts";
import { readAnthropic } from "../../plugins/mock/anthropic-prompt.ts";
import { PromptCache } from "../../plugins/mock/prompt-cache.ts";
import { startTokenman, type Tokenman } from "../support/kernel.ts";

const CONFIG = (url: string, rules: string): string =>
  `${providersAt(url)}\n[compression]\nholdout = 0\n[compression.dedup]\nmin_tokens = { claude-test = 300 }\n[compression.rules]\n${rules}\n`;

/** A chat in texts alone, with data in them, as a client without cache hints sends it. */
function turns(count: number): Turn[] {
  const data = (index: number) => JSON.stringify({ index, rows: [1.5, "a  b"] }, undefined, 4);
  const messages = Array.from({ length: 2 * count - 1 }, (_, index) => ({
    role: index % 2 === 0 ? "user" : "assistant",
    content: index % 4 === 0 ? data(index) : `number ${index}   ${"words and   more words ".repeat(40)}`,
  }));
  return Array.from({ length: count }, (_, index) => {
    const body = {
      model: "claude-test",
      max_tokens: 99,
      system: "Be careful.  ".repeat(200),
      messages: messages.slice(0, 2 * index + 1),
    };
    return {
      number: index + 1,
      dialect: "anthropic-messages",
      path: "/v1/messages",
      body: Buffer.from(JSON.stringify(body)),
    };
  });
}

async function send(tokenman: Tokenman, { path, body }: Turn): Promise<void> {
  const headers = { "content-type": "application/json", "x-api-key": "sk-ant-api03-test" };
  const reply = await fetch(`${tokenman.proxy}${path}`, { method: "POST", headers, body });
  assert.equal(reply.status, 200);
  await reply.arrayBuffer();
}

const unmarked = (body: Buffer): Buffer =>
  Buffer.from(body.toString("utf8").replace(/,"cache_control":\{[^}]*\}/g, ""));

describe("a conversation that TokenMan compresses", () => {
  it("goes on as it was after a restart and a changed config, and the provider's cache stays warm", async () => {
    const dataDir = await mkdtemp(join(tmpdir(), "compress-"));
    await using upstream = await recordingUpstream();
    const cache = new PromptCache(Date.now);
    const read: number[] = [];
    let tokenman = await startTokenman({
      dataDir,
      config: CONFIG(upstream.url, "collapse_whitespace = true"),
    });
    try {
      const all = turns(9);
      // The first turn is not marked, and its texts are no blocks yet.
      await send(tokenman, all[0]!);
      await assertPrefixStable(all.slice(1), async (turn) => {
        if (turn.number === 4) {
          await tokenman.stop();
          tokenman = await startTokenman({
            dataDir,
            config: CONFIG(upstream.url, "collapse_whitespace = true"),
          });
        }
        if (turn.number === 7) {
          await tokenman.stop();
          tokenman = await startTokenman({
            dataDir,
            config: CONFIG(upstream.url, "collapse_whitespace = false"),
          });
        }
        await send(tokenman, turn);
        const { body } = upstream.last();
        assert.deepEqual(rewriteProblems("anthropic-messages", turn.body, body), []);
        const plan = planAnthropic(readAnthropic(JSON.parse(String(body)), 4), cache, "", 300);
        plan.commit();
        read.push(plan.readTokens);
        return unmarked(body);
      });
    } finally {
      await tokenman.stop();
      await rm(dataDir, { recursive: true, force: true });
    }
    assert.equal(read[0], 0);
    assert.ok(
      read.slice(1).every((tokens, index) => tokens > 0 && tokens >= (read[index] ?? 0)),
      `read each turn: ${read.join(" ")}`,
    );
    const last = String(upstream.last().body);
    assert.ok(last.includes('{\\"index\\":0,\\"rows\\":[1.5,\\"a  b\\"]}'), "JSON without white space");
    assert.ok(last.includes("number 2 words and more words"), "under the rules of its time");
    assert.ok(last.includes("number 14   words and   more words"), "under today's");
  });

  it("is cut, marked and goes on as it was after a restart, where its beginning is left out", async () => {
    const dataDir = await mkdtemp(join(tmpdir(), "compress-"));
    await using upstream = await recordingUpstream();
    const config = `${CONFIG(upstream.url, "minify_json = true")}[compression.history]\nenabled = true\nwindow_size = 2\n`;
    const cache = new PromptCache(Date.now);
    const read: number[] = [];
    const cuts: number[] = [];
    let messages = 0;
    let tokenman = await startTokenman({ dataDir, config });
    try {
      // Nothing of it is cached by what the provider says, so that it may be cut at once; marks come a turn later.
      for (const turn of turns(11)) {
        if (turn.number === 7 || turn.number === 9) {
          await tokenman.stop();
          tokenman = await startTokenman({ dataDir, config });
        }
        await send(tokenman, turn);
        const { body } = upstream.last();
        assert.deepEqual(requestProblems("anthropic-messages", body), []);
        assert.deepEqual(rewriteProblems("anthropic-messages", turn.body, body), []);
        const sent = (JSON.parse(String(body)) as { messages: unknown[] }).messages.length;
        if (sent < messages) cuts.push(turn.number);
        assert.ok(
          sent === messages + 2 || sent < messages || turn.number === 1,
          `turn ${turn.number}: ${sent}`,
        );
        messages = sent;
        const plan = planAnthropic(readAnthropic(JSON.parse(String(body)), 4), cache, "", 300);
        plan.commit();
        read.push(plan.readTokens);
      }
      // What cannot be read as turns goes out as it came, and is counted.
      const odd = Buffer.from(JSON.stringify({ model: "m", messages: [null, "x".repeat(5_000)] }));
      await send(tokenman, { ...turns(1)[0]!, body: odd });
      assert.ok(upstream.last().body.equals(odd));
      const metrics = await (await fetch(`${tokenman.dashboard}/metrics`)).text();
      for (const line of ['outcome="unreadable"} 1', 'outcome="repeated"} 2', 'outcome="cold"} 1'])
        assert.ok(metrics.includes(`tokenman_history_requests_total{${line}\n`), line);
    } finally {
      await tokenman.stop();
      await rm(dataDir, { recursive: true, force: true });
    }
    assert.deepEqual(cuts, [5, 8, 11], "each time that there are more than twice two turns");
    assert.ok(read.filter((tokens) => tokens > 0).length >= 8, `read: ${read.join(" ")}`);
  });
});
