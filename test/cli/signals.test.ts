import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import http from "node:http";
import { join } from "node:path";
import { describe, test } from "node:test";
import { Sandbox, type Served } from "./support/instance.ts";

const CANARY = "sk-ant-api03-canary-canary-canary";

/** Begins a streamed reply that takes some time, and reads its first bytes. */
async function beginStream({ proxy }: Served, pace: string) {
  const request = http.request(`${proxy}/v1/chat/completions`, { method: "POST", agent: false });
  request.end(
    JSON.stringify({
      model: `mock-chunked-20-${pace}`,
      stream: true,
      messages: [{ role: "user", content: "x".repeat(200) }],
    }),
  );
  const [reply] = (await once(request, "response")) as [http.IncomingMessage];
  let text = "";
  const ended = new Promise<"whole" | "broken">((resolve) => {
    reply.on("data", (chunk) => {
      text += chunk;
    });
    reply.on("end", () => resolve("whole"));
    reply.on("error", () => resolve("broken"));
    request.on("error", () => resolve("broken"));
  });
  await once(reply, "data");
  return { ended, text: () => text };
}

describe("signals", { concurrency: 3 }, () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    test(`${signal} lets a stream end, takes no new requests, and exits with 0`, async () => {
      await using box = new Sandbox();
      const served = await box.serve();
      const stream = await beginStream(served, "slow-30ms");
      served.child.kill(signal);
      assert.equal(await stream.ended, "whole");
      assert.match(stream.text(), /data: \[DONE\]\s*$/);
      const { status, stderr } = await served.ended;
      assert.equal(status, 0, stderr);
      await assert.rejects(fetch(`${served.proxy}/health`));
      assert.equal((await box.run("status")).status, 69);
    });
  }

  test("a second SIGTERM breaks the stream off and exits with 143", async () => {
    await using box = new Sandbox();
    const served = await box.serve();
    const stream = await beginStream(served, "slow-500ms");
    served.child.kill("SIGTERM");
    // The second one must come when the first has been dealt with.
    await untilLogged(served, "shutting down");
    served.child.kill("SIGTERM");
    assert.equal(await stream.ended, "broken");
    assert.doesNotMatch(stream.text(), /\[DONE\]/);
    assert.equal((await served.ended).status, 143);
    assert.equal((await box.run("status")).status, 69);
  });

  test("stop sends the second one by itself when its time-out is over", async () => {
    await using box = new Sandbox();
    const served = await box.serve();
    const stream = await beginStream(served, "slow-500ms");
    const { status, stdout } = await box.run("stop", "--timeout", "0.2");
    assert.equal(status, 0);
    assert.match(stdout, /stopped \(pid \d+\); requests that took longer than 0\.2 s were cut/);
    assert.equal(await stream.ended, "broken");
  });

  test("SIGHUP reloads", async () => {
    await using box = new Sandbox();
    const served = await box.serve();
    served.child.kill("SIGHUP");
    await untilLogged(served, '"reloaded"');
    const status = JSON.parse((await box.run("status", "--json")).stdout);
    assert.deepEqual([status.generation, status.lastReload.ok], [2, true]);
  });
});

test("a reload may change the log's level", async () => {
  await using box = new Sandbox("[watch]\nenabled = false\n");
  const served = await box.serve();
  box.config('log_level = "error"\n[watch]\nenabled = false\n');
  assert.equal((await box.run("reload")).status, 0);
  const before = served.logged();
  served.child.kill("SIGTERM");
  const { status, stderr } = await served.ended;
  assert.deepEqual([status, stderr], [0, before]);
});

describe("errors that nobody catches", () => {
  const plugin = (body: string) => `
    import { definePlugin } from "@tokenman/plugin-sdk";
    export default definePlugin({
      name: "careless", version: "1.0.0", apiVersion: 1,
      setup(ctx) {
        ctx.contribute("route", { port: "dashboard", method: "GET", path: "/boom", handle({ json }) {
          json(200, {});
          ${body}
        } });
      },
    });`;

  test("an exception ends the process with 70, and its output holds no key", async () => {
    await using box = new Sandbox("", { SOME_API_KEY: "canary-of-the-environment" });
    writeFileSync(
      join(box.folder, "careless.ts"),
      plugin(`setTimeout(() => { throw new Error("${CANARY} " + process.env.SOME_API_KEY); });`),
    );
    const served = await box.serve("--plugins", "+./careless.ts");
    await fetch(`${served.dashboard}/boom`).catch(() => {});
    const { status, stderr, stdout } = await served.ended;
    assert.equal(status, 70);
    assert.match(stderr, /uncaught exception.*\[redacted\] \[redacted\]/s);
    assert.doesNotMatch(stderr + stdout, /canary/);
    assert.equal((await box.run("status")).status, 69);
  });

  test("an exception is told with its plugin; no new request is taken, and one in flight ends", async () => {
    await using box = new Sandbox();
    writeFileSync(join(box.folder, "careless.ts"), plugin(`setTimeout(() => { throw new Error("boom"); });`));
    const served = await box.serve("--plugins", "+./careless.ts");
    const stream = await beginStream(served, "slow-30ms");
    await fetch(`${served.dashboard}/boom`).catch(() => {});
    const line = await untilLogged(served, "uncaught exception");
    assert.equal(JSON.parse(line).plugin, "careless");
    assert.equal(await stream.ended, "whole");
    assert.match(stream.text(), /data: \[DONE\]\s*$/);
    await assert.rejects(fetch(`${served.proxy}/health`));
    assert.equal((await served.ended).status, 70);
  });

  test("a rejection is logged with the plugin it comes from, and the process lives", async () => {
    await using box = new Sandbox();
    writeFileSync(join(box.folder, "careless.ts"), plugin(`Promise.reject(new Error("${CANARY}"));`));
    const served = await box.serve("--plugins", "+./careless.ts");
    await fetch(`${served.dashboard}/boom`);
    const line = await untilLogged(served, "unhandled rejection");
    assert.equal(JSON.parse(line).plugin, "careless");
    assert.doesNotMatch(line, /canary/);
    assert.equal((await fetch(`${served.proxy}/health`)).status, 200);
  });
});

/** Resolves to the log's line that holds `text`. */
function untilLogged({ logged, child }: Served, text: string): Promise<string> {
  return new Promise((resolve) => {
    const look = () => {
      const line = logged()
        .split("\n")
        .slice(0, -1)
        .find((each) => each.includes(text));
      if (line === undefined) return;
      child.stderr?.off("data", look);
      resolve(line);
    };
    child.stderr?.on("data", look);
    look();
  });
}
