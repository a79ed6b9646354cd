import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import net, { type AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import {
  chunkBytes,
  gate,
  headBytes,
  providersAt,
  type RecordingUpstream,
  recordingUpstream,
  steps,
} from "@tokenman/plugin-sdk/testkit";
import { Sandbox, type Served } from "../cli/support/instance.ts";
import { MESSAGE, STOP } from "../support/faulty.ts";
import { outcomesByProcess } from "../support/ledger-file.ts";
import { isWholeChunked, type RawClient, rawClient, requestBytes, statusOf } from "../support/raw-client.ts";

const limits = { timeout: 60_000 };
const isShuttingDown = (stderr: string) => stderr.includes("shutting down");
const STREAM = headBytes(200, ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"]);

interface World extends AsyncDisposable {
  readonly box: Sandbox;
  readonly upstream: RecordingUpstream;
}
async function world(config = ""): Promise<World> {
  const upstream = await recordingUpstream();
  const box = new Sandbox();
  box.config(
    `${config}\n[access_log]\nfile = ${JSON.stringify(join(box.folder, "access.log"))}\n${providersAt(upstream.url)}`,
  );
  return {
    box,
    upstream,
    async [Symbol.asyncDispose]() {
      await box[Symbol.asyncDispose]();
      await upstream.stop();
    },
  };
}

async function ask(proxy: string, body = MESSAGE): Promise<RawClient> {
  const client = await rawClient(proxy);
  await client.send(requestBytes({ body }));
  return client;
}
/** The outcomes in the access log, when the process has ended. */
function outcomes(box: Sandbox): string[] {
  return readFileSync(join(box.folder, "access.log"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => {
      const { outcome, code } = JSON.parse(line) as { outcome: string; code?: string };
      return code === undefined ? outcome : `${outcome} ${code}`;
    });
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test(
    `fault 33: ${signal} in the middle of a stream: it ends whole, nothing new is taken, exit 0`,
    limits,
    async () => {
      await using w = await world();
      const go = gate();
      w.upstream.next(steps(STREAM, chunkBytes("event: a\n\n"), go.opened, chunkBytes(STOP), chunkBytes("")));
      const { child, proxy, ended, says } = await w.box.serve();
      const idle = await rawClient(proxy);
      await idle.send(requestBytes({ method: "GET", target: "/health" }));
      await idle.until("ok");
      const streaming = await ask(proxy);
      await streaming.until("event: a");
      const halfSent = await rawClient(proxy);
      // Its 100 says that its body is being read.
      await halfSent.send(requestBytes({ headers: ["Expect: 100-continue", "Content-Length: 10"] }));
      await halfSent.until("100 Continue");
      await halfSent.send("{");

      child.kill(signal);
      await says(isShuttingDown);
      assert.equal(await idle.ended, "end", "an idle connection is closed");
      await assert.rejects(rawClient(proxy), { code: "ECONNREFUSED" });
      halfSent.leave();
      go.open();
      await streaming.until(isWholeChunked);
      assert.ok(streaming.text.includes(STOP));
      await streaming.ended;
      const { status, stderr } = await ended;
      assert.equal(status, 0, stderr);
      assert.deepEqual(outcomes(w.box).sort(), ["aborted TM_CLIENT_GONE", "answered"]);
      assert.equal(w.upstream.open, 0);
    },
  );
}

test("fault 33: a second SIGTERM breaks off what is under way and exits at once", limits, async () => {
  await using w = await world();
  const never = gate();
  w.upstream.next(steps(STREAM, chunkBytes("event: a\n\n"), never.opened), steps(never.opened));
  const { child, proxy, ended, says } = await w.box.serve();
  const streaming = await ask(proxy);
  await streaming.until("event: a");
  // Not the same request: that would wait for the first one's reply.
  const waiting = await ask(proxy, MESSAGE.replace("hi", "ho"));
  await w.upstream.request(2);
  child.kill("SIGTERM");
  await says(isShuttingDown);
  child.kill("SIGTERM");
  await Promise.all([streaming.ended, waiting.ended]);
  assert.ok(!isWholeChunked(streaming.text), "a broken stream looks broken");
  const { status, stderr } = await ended;
  assert.equal(status, 143, stderr);
  assert.deepEqual(outcomes(w.box), ["failed TM_SHUTTING_DOWN", "failed TM_SHUTTING_DOWN"]);
  never.open();
});

test(
  "fault 33: a request that comes on a connection in use during the drain is a 503 that says when to come back",
  limits,
  async () => {
    await using w = await world();
    const go = gate();
    w.upstream.next(steps(STREAM, chunkBytes("event: a\n\n"), go.opened, chunkBytes(STOP), chunkBytes("")));
    const { child, proxy, ended, says } = await w.box.serve();
    const client = await ask(proxy);
    await client.until("event: a");
    child.kill("SIGTERM");
    await says(isShuttingDown);
    await client.send(requestBytes({ body: MESSAGE }));
    go.open();
    await client.ended;
    assert.match(client.text, /message_stop[\s\S]*0\r\n\r\nHTTP\/1\.1 503 [\s\S]*retry-after: 1/i);
    assert.match(client.text, /503 [\s\S]*connection: close/i);
    assert.equal((await ended).status, 0);
    assert.equal(w.upstream.requests.length, 1);
  },
);

for (const second of [false, true]) {
  test(
    second
      ? "fault 33 under load: a second SIGTERM breaks off what is under way, and the ledger has all of it"
      : "fault 33 under load: SIGTERM cuts none of the requests that were accepted before",
    limits,
    async () => {
      await using w = await world();
      const [heads, ends] = [gate(), gate()];
      w.upstream.script(
        steps(
          heads.opened,
          STREAM,
          chunkBytes("event: a\n\n"),
          ends.opened,
          chunkBytes(STOP),
          chunkBytes(""),
        ),
      );
      const { child, proxy, ended, says } = await w.box.serve();
      const askAll = async (count: number) => {
        const first = w.upstream.requests.length;
        const clients = Array.from({ length: count }, (_, index) =>
          ask(proxy, MESSAGE.replace("hi", `hi ${first + index}`)),
        );
        await w.upstream.request(first + count);
        return Promise.all(clients);
      };
      const streaming = await askAll(48);
      heads.open();
      await Promise.all(streaming.map((client) => client.until("event: a")));
      // These have no byte of their replies yet.
      const late = gate();
      w.upstream.script(
        steps(late.opened, STREAM, chunkBytes("event: a\n\n"), chunkBytes(STOP), chunkBytes("")),
      );
      const waiting = await askAll(16);
      child.kill("SIGTERM");
      await says(isShuttingDown);
      const all = [...streaming, ...waiting];
      if (second) child.kill("SIGTERM");
      else {
        late.open();
        ends.open();
        await Promise.all(all.map((client) => client.until(isWholeChunked)));
      }
      await Promise.all(all.map((client) => client.ended));
      const whole = all.filter(({ text }) => isWholeChunked(text) && text.includes(STOP)).length;
      const { status, stderr } = await ended;
      assert.deepEqual([status, whole], second ? [143, 0] : [0, 64], stderr);
      assert.deepEqual(outcomesByProcess(w.box.dataDir), [second ? { failed: 64 } : { answered: 64 }]);
      late.open();
      ends.open();
    },
  );
}

/** Starts in the foreground where at most `descriptors` files can be open. */
async function serveWith(
  box: Sandbox,
  descriptors: number,
): Promise<Pick<Served, "child" | "proxy" | "dashboard">> {
  const main = join(import.meta.dirname, "../../cli/main.ts");
  const command = `ulimit -n ${descriptors}; exec "$0" "$@"`;
  const child = spawn(
    "sh",
    ["-c", command, process.execPath, main, "start", "--foreground", "--config", box.configFile],
    { cwd: box.folder, env: box.env, stdio: "pipe" },
  );
  let said = "";
  const line = await new Promise<string>((resolve, reject) => {
    child.stderr.on("data", (chunk) => {
      said += chunk;
      const found = said.split("\n").find((each) => each.includes("TokenMan serves") && each.endsWith("}"));
      if (found !== undefined) resolve(found);
    });
    child.once("close", () => reject(new Error(said)));
  });
  return { child, ...(JSON.parse(line) as { proxy: string; dashboard: string }) };
}

test(
  "fault 34: connections over the descriptors' limit are closed; nothing else suffers, and it recovers",
  limits,
  async () => {
    await using w = await world();
    const go = gate();
    w.upstream.script(steps(STREAM, chunkBytes("event: a\n\n"), go.opened, chunkBytes(STOP), chunkBytes("")));
    const { child, proxy, dashboard } = await serveWith(w.box, 128);
    const ended = once(child, "close");
    try {
      const held: RawClient[] = [];
      for (let count = 0; count < 16; count++) held.push(await ask(proxy));
      await Promise.all(held.map((client) => client.until("event: a")));
      // Ten times as many as there is room for.
      const excess = await Promise.all(Array.from({ length: 160 }, () => ask(proxy)));
      await Promise.all(excess.map((client) => client.ended));
      assert.deepEqual([...new Set(excess.map(({ text }) => text))], [""], "they are closed without a word");
      const health = await fetch(`${dashboard}/health/ready`, { headers: { connection: "close" } });
      assert.equal(health.status, 200, "the other port serves");
      go.open();
      await Promise.all(held.map((client) => client.until(isWholeChunked)));
      for (const client of held) client.leave();
      await Promise.all(held.map((client) => client.ended));
      // The server hears of their leaving a moment later than they do: it is asked until there is room.
      for (;;) {
        const again = await ask(proxy);
        const text = await again.until(isWholeChunked).catch(() => "");
        again.leave();
        if (statusOf(text) === 200) break;
      }
    } finally {
      child.kill("SIGTERM");
      await ended;
    }
    assert.equal(child.exitCode, 0);
  },
);

test(
  "fault 34: a port that another program has is a clear error and exit code 69, with nothing left open",
  limits,
  async () => {
    const other = net.createServer();
    other.listen(0, "127.0.0.1");
    await once(other, "listening");
    const { port } = other.address() as AddressInfo;
    for (const name of ["PROXY", "DASHBOARD"]) {
      await using box = new Sandbox("", { [`TOKENMAN_SERVER_${name}_PORT`]: String(port) });
      const { status, stderr } = await box.run("start", "--foreground");
      assert.equal(status, 69, stderr);
      assert.match(
        stderr,
        new RegExp(`TM_PORT_IN_USE .*127\\.0\\.0\\.1:${port} \\(server\\.${name.toLowerCase()}_port\\)`),
      );
      assert.throws(() => readFileSync(join(box.dataDir, "tokenman.pid")), { code: "ENOENT" });
    }
    other.close();
  },
);

test(
  "fault 34: a stale PID file stops no start, and the stranger that has the number now is not signalled",
  limits,
  async () => {
    await using box = new Sandbox();
    mkdirSync(box.dataDir, { recursive: true, mode: 0o700 });
    // This very process: were it signalled, the test would not live to tell.
    const stale = {
      pid: process.pid,
      identity: "of another boot",
      startedAt: 0,
      version: "0",
      proxy: "http://127.0.0.1:1",
    };
    const file = join(box.dataDir, "tokenman.pid");
    for (const text of [JSON.stringify(stale), "4711", "", "{"]) {
      writeFileSync(file, text, { mode: 0o600 });
      const stop = await box.run("stop");
      assert.equal(stop.status, 69, `${JSON.stringify(text)}: ${stop.stderr}`);
    }
    const { child, ended } = await box.serve();
    assert.equal((JSON.parse(readFileSync(file, "utf8")) as { pid: number }).pid, child.pid);
    const second = await box.run("start", "--foreground");
    assert.equal(second.status, 69);
    assert.match(second.stderr, /TM_ALREADY_RUNNING/);
    child.kill("SIGTERM");
    assert.equal((await ended).status, 0);
  },
);
