import assert from "node:assert/strict";
import { execFile, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { chunked, type Relay, startRelay } from "../support/relay.ts";
import { gate } from "../support/upstream.ts";
import { REMOTE, vendor } from "../support/vendor.ts";

const run = promisify(execFile);
const hasCurl = spawnSync("curl", ["--version"]).status === 0;

describe("curl through TokenMan", { skip: hasCurl ? false : "curl is not installed" }, () => {
  let relay: Relay;
  before(async () => {
    relay = await startRelay();
    relay.upstream.script(vendor);
  });
  after(() => relay[Symbol.asyncDispose]());

  const DIALECTS = {
    "/v1/messages": ["anthropic-version: 2023-06-01", "x-api-key: k"],
    "/v1/chat/completions": ["Authorization: Bearer k"],
  };
  for (const [path, headers] of Object.entries(DIALECTS)) {
    for (const model of ["mock", `${REMOTE}mock`]) {
      it(`${path}, ${model}: whole, streamed and compressed`, async () => {
        const ask = (stream: boolean, ...more: string[]) =>
          run("curl", [
            ...["-sS", "--fail-with-body", "--max-time", "20", `${relay.tokenman.proxy}${path}`],
            ...[...headers, "content-type: application/json"].flatMap((header) => ["-H", header]),
            ...[
              "-d",
              JSON.stringify({
                model,
                max_tokens: 99,
                stream,
                messages: [{ role: "user", content: "hello" }],
              }),
            ],
            ...more,
          ]);
        const whole = JSON.parse((await ask(false)).stdout) as {
          content?: [{ text: string }];
          choices?: [{ message: { content: string } }];
        };
        assert.equal(whole.content?.[0].text ?? whole.choices?.[0].message.content, "hello");
        const { stdout } = await ask(true, "--no-buffer", "--compressed");
        const last = path === "/v1/messages" ? '{"type":"message_stop"}' : "[DONE]";
        assert.ok(stdout.trimEnd().endsWith(`data: ${last}`), stdout);
        assert.match((await ask(false, "--include")).stdout, /^HTTP\/1\.1 200 OK\r\n/);
        const old = await ask(true, "--http1.0");
        assert.equal(eventsOf(old.stdout), eventsOf(stdout));
      });
    }
  }

  it("shows a broken stream as an error (18, 56), never as success", async () => {
    for (const version of ["--http1.1", "--http1.0"]) {
      relay.upstream.next(async (call) => {
        await call.received;
        await call.write(
          "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        await call.write(chunked(Buffer.from("data: half\n\n"), [99]).subarray(0, -5));
        await call.end();
      });
      const failed = run("curl", [
        "-sS",
        version,
        "-H",
        "x-api-key: k",
        "-d",
        "{}",
        `${relay.tokenman.proxy}/v1/messages`,
      ]);
      await assert.rejects(failed, (error: { code?: number; stdout?: string }) => {
        assert.ok(error.code === 18 || error.code === 56, `${version}: exit ${error.code}`);
        assert.equal(error.stdout, "data: half\n\n");
        return true;
      });
    }
  });

  it("is heard at once where it is interrupted", async () => {
    const closed = gate();
    relay.upstream.next(async (call) => {
      await call.received;
      await call.write(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
      );
      await call.write(chunked(Buffer.from("data: half\n\n"), [99]).subarray(0, -5));
      await call.closed;
      closed.open();
    });
    const curl = spawn("curl", [
      "-sSN",
      "-H",
      "x-api-key: k",
      "-d",
      "{}",
      `${relay.tokenman.proxy}/v1/messages`,
    ]);
    const [half] = (await once(curl.stdout, "data")) as [Buffer];
    assert.match(half.toString(), /^data: /);
    curl.kill("SIGINT");
    await closed.opened;
  });

  it("uploads with Expect: 100-continue", async () => {
    const body = "x".repeat(2_000_000);
    relay.upstream.next(async (call) => {
      await call.received;
      await call.reply({ status: 200, body: "taken" });
    });
    const curl = spawn("curl", [
      ...["-sS", "-H", "anthropic-version: 2023-06-01", "-H", "x-api-key: k", "-H", "Expect: 100-continue"],
      ...["--data-binary", "@-", `${relay.tokenman.proxy}/v1/files`],
    ]);
    let answer = "";
    curl.stdout.on("data", (chunk) => {
      answer += chunk;
    });
    curl.stdin.end(body);
    await new Promise((resolve) => curl.once("close", resolve));
    assert.equal(answer, "taken");
    assert.equal(relay.upstream.last().body.length, body.length);
  });
});

/** The kinds of events: ids and time stamps differ from reply to reply. */
function eventsOf(stream: string): string {
  return stream.replaceAll(/"(id|created|request_id)":("[^"]*"|\d+)/g, "");
}
