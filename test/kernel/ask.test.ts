import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { definePlugin, type Question, type SetupContext, type TokenmanError } from "@tokenman/plugin-sdk";
import { faults, type RecordingUpstream, recordingUpstream, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { startTokenman } from "../support/kernel.ts";

const limits = { timeout: 20_000 };
type Host = SetupContext<unknown, Record<never, never>>["host"];

/** Runs `use` with the host that a plugin is given, and one provider at an upstream. */
async function asking(
  use: (
    ask: (question?: Partial<Question>) => ReturnType<Host["ask"]>,
    upstream: RecordingUpstream,
  ) => Promise<void>,
  base = "",
): Promise<void> {
  await using upstream = await recordingUpstream();
  let host: Host | undefined;
  const plugin = definePlugin({
    name: "asker",
    version: "1.0.0",
    apiVersion: 1,
    setup(ctx) {
      host = ctx.host;
    },
  });
  await using _ = await startTokenman({
    plugins: [plugin],
    config: `[providers.far]\napi_base = "${upstream.url}${base}"\n`,
  });
  const provider = host!.registry.all("provider").find(({ name }) => name === "far")!;
  await use(
    (question) =>
      host!.ask(provider, {
        method: "GET",
        path: "/v1/things?a=b",
        headers: ["X-Mine", "1", "Connection", "keep-alive, X-Hop", "X-Hop", "2"],
        timeoutMs: 10_000,
        maxBytes: 1_000,
        ...question,
      }),
    upstream,
  );
}
const fails = (code: string) => (error: TokenmanError) => {
  assert.equal(error.code, code);
  return true;
};

describe("what a plugin asks a provider beside all exchanges", () => {
  it("goes out as it is, less what belongs to one hop, and any status is an answer", limits, async () => {
    await asking(async (ask, upstream) => {
      upstream.next(
        wholeReply({ status: 418, headers: ["X-Theirs", "3", "Keep-Alive", "timeout=5"], body: "tea" }),
      );
      const answer = await ask();
      assert.equal(answer.status, 418);
      assert.equal(answer.body.toString(), "tea");
      assert.ok(answer.headers.includes("X-Theirs") && !answer.headers.includes("Keep-Alive"));
      const { target, headers } = upstream.last();
      assert.equal(target, "/base/v1/things?a=b");
      assert.ok(headers.includes("X-Mine") && !headers.includes("X-Hop"));
      upstream.next(wholeReply({ status: 200, body: "{}" }));
      await ask({ method: "POST", body: Buffer.from('{"x":1}') });
      assert.equal(upstream.last().body.toString(), '{"x":1}');
    }, "/base");
  });

  it("is answered decoded", limits, async () => {
    await asking(async (ask, upstream) => {
      const headers = ["Content-Encoding", "gzip"];
      upstream.next(wholeReply({ status: 200, headers, body: gzipSync("text") }));
      assert.equal((await ask()).body.toString(), "text");
      // What would unpack to more than was asked for does not.
      upstream.next(wholeReply({ status: 200, headers, body: gzipSync(Buffer.alloc(1_000_000)) }));
      await assert.rejects(ask(), fails("TM_REPLY_TOO_LARGE"));
    });
  });

  it(
    "fails where the answer is too large, is broken off, or there is none, and lets go of the connection",
    limits,
    async () => {
      await asking(async (ask, upstream) => {
        upstream.next(wholeReply({ status: 200, body: "x".repeat(1_001) }));
        await assert.rejects(ask(), fails("TM_REPLY_TOO_LARGE"));
        upstream.next(faults.reset());
        await assert.rejects(ask(), fails("TM_UPSTREAM_RESET"));
        upstream.next(async (call) => {
          await call.received;
          await call.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
          call.reset();
        });
        await assert.rejects(ask(), fails("TM_UPSTREAM_CUT"));
      });
    },
  );

  it("is called off when its time is over, before the head and after it", limits, async () => {
    await asking(async (ask, upstream) => {
      const closed: Promise<void>[] = [];
      upstream.script(async (call) => {
        closed.push(call.closed);
        await call.received;
        if (closed.length > 1) await call.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
        await call.closed;
      });
      await assert.rejects(ask({ timeoutMs: 20 }), fails("TM_UPSTREAM_TIMEOUT"));
      await assert.rejects(ask({ timeoutMs: 20 }), fails("TM_UPSTREAM_TIMEOUT"));
      await Promise.all(closed);
    });
  });
});
