import assert from "node:assert/strict";
import test from "node:test";
import { SseSplitter } from "@tokenman/plugin-sdk";
import {
  BILLED,
  dialectOf,
  faults,
  gate,
  recordingUpstream,
  type Script,
  sendRequest,
  textEvents,
  textScript,
  type VendorDialect,
} from "@tokenman/plugin-sdk/testkit";
import { dialects } from "../support/ask-provider.ts";

const PATHS = ["/v1/messages", "/v1/chat/completions", "/v1/responses?x=1"];
const body = '{"model":"m","stream":true}';

async function ask(script: Script, path = "/v1/messages", signal?: AbortSignal) {
  await using upstream = await recordingUpstream();
  upstream.next(script);
  const reply = await sendRequest(upstream.url + path, { body, ...(signal && { signal }) });
  assert.deepEqual(upstream.failures, []);
  return reply;
}

test("connections that break before the head", async () => {
  await assert.rejects(ask(faults.reset()), { code: "ECONNRESET" });
  await assert.rejects(ask(faults.reset("head")), { code: "ECONNRESET" });
  await assert.rejects(ask(faults.close()), { code: "ECONNRESET" });
  await assert.rejects(ask(faults.notHttp()), /Parse Error/);
});

test("a reply that breaks off after a given byte, by a reset or by a clean end", async () => {
  const whole = Buffer.concat(textEvents("anthropic-messages"));
  for (const fault of [faults.cutAfter(40), faults.endAfter(40)]) {
    const { status, body, complete } = await ask(fault);
    assert.deepEqual([status, String(body), complete], [200, String(whole.subarray(0, 40)), false]);
  }
  const reply = { status: 200, body: parts("abc", "def", "ghi") };
  const cut = await ask(faults.cutAfter(5, { reply }));
  assert.deepEqual([String(cut.body), cut.complete], ["abcde", false]);
  async function* parts(...texts: string[]) {
    for (const text of texts) yield Buffer.from(text);
  }
});

test("a head that waits for its gate, and a provider that falls silent until its client leaves", async () => {
  const held = gate();
  const answer = ask(faults.slowHead(held.opened));
  held.open();
  assert.equal((await answer).status, 200);
  for (const fault of [faults.silent(), faults.stallAfter(10)]) {
    await using upstream = await recordingUpstream({ script: fault });
    const leaving = new AbortController();
    const asked = sendRequest(upstream.url, { body, signal: leaving.signal }).catch(() => "left");
    await upstream.request(1);
    leaving.abort();
    await asked;
  }
});

test("errors in the vendor's words, and a body that is somebody else's", async () => {
  const overloaded = await ask(faults.status(529, { headers: ["Retry-After", "7"] }));
  assert.equal(JSON.parse(String(overloaded.body)).error.type, "overloaded_error");
  assert.ok(overloaded.headers.includes("Retry-After"));
  const limited = await ask(faults.status(429), "/v1/chat/completions");
  assert.equal(JSON.parse(String(limited.body)).error.code, "rate_limit_error");
  const html = await ask(faults.status(502, { headers: ["Content-Type", "text/html"], body: "<h1>Bad" }));
  assert.equal(String(html.body), "<h1>Bad");
  assert.equal((await ask(faults.redirect("http://elsewhere/"))).status, 307);
});

test("streams of each dialect are read by that dialect: their usage, their end, their errors", async () => {
  for (const path of PATHS) {
    const dialect = dialects.find(({ name }) => name === dialectOf(path))!;
    const whole = await ask(textScript(), path);
    const read = (bytes: Buffer) => {
      const kinds: string[] = [];
      const reader = dialect.usageReader();
      const splitter = new SseSplitter();
      splitter.push(bytes, (event) => {
        reader.event(event);
        kinds.push(dialect.judgeEvent(event).kind);
      });
      return { kinds, usage: reader.usage() };
    };
    const { kinds, usage } = read(whole.body);
    assert.equal(kinds.at(-1), "terminal", path);
    assert.equal(usage?.inputTokens, BILLED.inputTokens);
    assert.equal(usage?.outputTokens, BILLED.outputTokens);
    assert.equal(usage?.complete, true);
    assert.equal(read((await ask(faults.eventError(), path)).body).kinds[0], "error", path);
    assert.deepEqual(read((await ask(faults.eventError({ after: 3 }), path)).body).kinds.indexOf("error"), 3);
    const early = read((await ask(faults.endsEarly(), path)).body);
    assert.ok(!early.kinds.includes("terminal"), path);
  }
});

test("a reply to a request that does not stream is one body, with its usage", async () => {
  await using upstream = await recordingUpstream();
  for (const path of PATHS) {
    const reply = await sendRequest(upstream.url + path, { body: "{}" });
    const dialect = dialects.find(
      ({ name }) => name === (dialectOf(path) satisfies VendorDialect | undefined),
    )!;
    const reader = dialect.usageReader();
    reader.body(reply.body, 200);
    assert.equal(reader.usage()?.outputTokens, BILLED.outputTokens, path);
  }
});
