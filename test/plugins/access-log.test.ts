import assert from "node:assert/strict";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import accessLog from "../../plugins/access-log/index.ts";
import anthropic from "../../plugins/anthropic/index.ts";
import mock from "../../plugins/mock/index.ts";
import openai from "../../plugins/openai/index.ts";
import router from "../../plugins/router/index.ts";
import { type RunningKernel, runKernel } from "../support/running-kernel.ts";

const KEY = "sk-ant-api03-canary-canary-canary";

/** Runs requests through a kernel that logs to a file, and gives the lines once it has ended. */
async function linesOf(
  requests: (running: RunningKernel) => Promise<unknown>,
  config = "",
): Promise<Record<string, unknown>[]> {
  let lines: string[] = [];
  {
    const running = await runKernel(
      [accessLog, anthropic, openai, mock, router],
      `[access_log]\nfile = "access/log.jsonl"\n${config}`,
    );
    const file = join(running.folder, "access", "log.jsonl");
    try {
      await requests(running);
      await running.kernel.shutdown({ drainMs: 10_000, reason: "the lines are wanted" });
      assert.equal(statSync(file).mode & 0o777, 0o600);
      lines = readFileSync(file, "utf8").split("\n");
    } finally {
      await running[Symbol.asyncDispose]();
    }
  }
  assert.equal(lines.pop(), "", "the last line is complete");
  assert.doesNotMatch(lines.join(), /canary/, "no key is logged");
  return lines.map((line) => JSON.parse(line));
}

/** Resolves when an exchange is being worked on. */
async function whenActive(kernel: RunningKernel["kernel"]): Promise<void> {
  while (kernel.status().activeExchanges === 0) await new Promise((resolve) => setImmediate(resolve));
}

function ask(base: string, body: object, headers: Record<string, string> = {}, signal?: AbortSignal) {
  return fetch(`${base}/v1/chat/completions?key=canary`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${KEY}`, ...headers },
    body: JSON.stringify({ messages: [{ role: "user", content: "hi" }], ...body }),
    ...(signal !== undefined && { signal }),
  });
}

describe("access-log", () => {
  test("writes one line for each exchange, with who answered what in which time", async () => {
    let id: string | null = null;
    const [line, ...rest] = await linesOf(async ({ proxy }) => {
      const reply = await ask(proxy, { model: "mock" }, { "x-tokenman-project": "web" });
      id = reply.headers.get("x-tokenman-request-id");
      await reply.text();
    });
    assert.equal(rest.length, 0);
    const { time, durationMs, firstByteMs, bytes, attempts, ...said } = line as Record<string, number> & {
      attempts: Record<string, unknown>[];
    };
    assert.deepEqual(said, {
      log: "access",
      id,
      project: "web",
      method: "POST",
      path: "/v1/chat/completions",
      dialect: "openai-chat",
      model: "mock",
      stream: false,
      provider: "mock",
      status: 200,
      outcome: "answered",
      origin: "provider",
    });
    assert.ok(Date.parse(String(time)) > 0);
    assert.ok(durationMs! >= firstByteMs! && bytes! > 0);
    assert.deepEqual([attempts.length, attempts[0]?.["provider"], attempts[0]?.["status"]], [1, "mock", 200]);
  });

  test("logs a stream that ended, one that the client left, and one that the provider broke off", async () => {
    const lines = await linesOf(async ({ proxy, kernel }) => {
      await (await chat(proxy, { model: "mock", stream: true })).text();

      const left = new AbortController();
      const slow = await chat(proxy, { model: "mock-slow-60s", stream: true }, {}, left.signal).catch(
        () => undefined,
      );
      assert.equal(slow, undefined);
      await (await chat(proxy, { model: "mock-fail-500" })).text();
      await assert.rejects((await chat(proxy, { model: "mock-fail-midstream", stream: true })).text());
      assert.equal(kernel.status().plugins.find(({ name }) => name === "access-log")?.failures, 0);

      /** Leaves as soon as the exchange is on its way. */
      function chat(base: string, body: object, headers = {}, signal?: AbortSignal) {
        const sent = ask(base, body, headers, signal);
        if (signal !== undefined) void whenActive(kernel).then(() => left.abort());
        return sent;
      }
    });
    assert.deepEqual(
      lines.map(({ model, stream, status, outcome }) => [model, stream, status, outcome]).sort(),
      [
        ["mock", true, 200, "answered"],
        ["mock-fail-500", false, 500, "answered"],
        ["mock-fail-midstream", true, 200, "partial"],
        ["mock-slow-60s", true, 499, "aborted"],
      ],
    );
  });

  test("keeps what a client sends on one line, and cuts it", async () => {
    const model = `mock\n{"forged":true}\u2028${"x".repeat(5_000)}`;
    const lines = await linesOf(async ({ proxy }) => {
      await (await ask(proxy, { model })).text();
    });
    assert.equal(lines.length, 1);
    const logged = String(lines[0]?.["model"]);
    assert.equal(logged, `${model.slice(0, 300)}…`);
    assert.ok(lines[0]?.["forged"] === undefined);
  });

  test("masks what looks like a key, wherever a client puts it", async () => {
    const lines = await linesOf(async ({ proxy }) => {
      await (await ask(proxy, { model: `mock-${KEY}` })).text();
      await (await fetch(`${proxy}/v1/files/${KEY}`)).text();
    }, '[providers.anthropic]\napi_base = "http://127.0.0.1:1"\nauth = "none"\n');
    assert.deepEqual(
      lines.map(({ path, model }) => [path, model]),
      [
        ["/v1/chat/completions", "mock-[redacted]"],
        ["/v1/files/[redacted]", undefined],
      ],
    );
  });

  test("goes on in the same file after a reload, and in the new one when the config names another", async () => {
    await using running = await runKernel(
      [accessLog, openai, mock, router],
      '[access_log]\nfile = "one.jsonl"\n',
    );
    const send = async () => void (await (await ask(running.proxy, { model: "mock" })).text());
    await send();
    assert.ok((await running.kernel.reload("test")).ok);
    await send();
    writeFileSync(
      running.configFile,
      readFileSync(running.configFile, "utf8").replace("one.jsonl", "two.jsonl"),
    );
    assert.ok((await running.kernel.reload("test")).ok);
    await send();
    await running.kernel.shutdown({ drainMs: 10_000, reason: "the lines are wanted" });
    const count = (file: string) =>
      readFileSync(join(running.folder, file), "utf8").trimEnd().split("\n").length;
    assert.deepEqual([count("one.jsonl"), count("two.jsonl")], [2, 1]);
  });

  test("refuses to be set up with a file that cannot be opened", async () => {
    await assert.rejects(
      runKernel([accessLog], '[access_log]\nfile = "tokenman.toml/access.log"\n'),
      /access-log/,
    );
  });
});
