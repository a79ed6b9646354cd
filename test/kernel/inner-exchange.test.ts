import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import {
  definePlugin,
  type Exchange,
  type InnerExchange,
  type InnerRequest,
  type Outcome,
  type SetupContext,
  type TokenmanError,
} from "@tokenman/plugin-sdk";
import {
  gate,
  headBytes,
  type RecordingUpstream,
  recordingUpstream,
  sendRequest,
  steps,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { Asker } from "../../kernel/asker.ts";
import type { ExchangeState } from "../../kernel/exchange.ts";
import { KernelReply } from "../../kernel/reply/reply.ts";
import type { BodySink, BodySource } from "../../kernel/reply/source.ts";
import { startTokenman, type Tokenman } from "../support/kernel.ts";

const limits = { timeout: 20_000 };
type Host = SetupContext<unknown, Record<never, never>>["host"];
const BODY = Buffer.from('{"model": "m",  "messages":[{"role":"user","content":"hi"}]}');

/** Pushes for as long as it is let. */
class EndlessSource implements BodySource {
  pushed = 0;
  aborted = false;
  #sink: BodySink | undefined;
  #paused = false;
  #pushing = false;

  start(sink: BodySink): void {
    this.#sink = sink;
    this.resume();
  }
  pause(): void {
    this.#paused = true;
  }
  resume(): void {
    this.#paused = false;
    if (this.#pushing) return;
    this.#pushing = true;
    while (!this.#paused && !this.aborted) {
      this.pushed++;
      this.#sink?.data(Buffer.alloc(64 * 1024));
    }
    this.#pushing = false;
  }
  abort(): void {
    this.aborted = true;
  }
}

class World {
  readonly settled: { readonly exchange: Exchange; readonly outcome: Outcome }[] = [];
  readonly #waiting: (() => void)[] = [];
  readonly tokenman: Tokenman;
  readonly upstream: RecordingUpstream;
  readonly #host: () => Host;

  constructor(tokenman: Tokenman, upstream: RecordingUpstream, host: () => Host) {
    this.tokenman = tokenman;
    this.upstream = upstream;
    this.#host = host;
  }
  readonly ask = (request: Partial<InnerRequest> = {}): InnerExchange =>
    this.#host().exchange({
      plugin: "asker",
      path: "/v1/chat/completions",
      headers: ["Authorization", "Bearer sk-mine", "X-Mine", "1"],
      body: BODY,
      ...request,
    });
  note(exchange: Exchange, outcome: Outcome): void {
    this.settled.push({ exchange, outcome });
    for (const wake of this.#waiting.splice(0)) wake();
  }
  readonly outcome = async (
    id: string,
  ): Promise<{ readonly exchange: Exchange; readonly outcome: Outcome }> => {
    for (;;) {
      const found = this.settled.find(({ exchange }) => exchange.id === id);
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  };
}

/** Runs `use` with a plugin that begins exchanges, one provider, and what `onRequest` does with what comes. */
async function asking(
  use: (world: World) => Promise<void>,
  options: { config?: string; auth?: string; onRequest?: (exchange: Exchange, host: Host) => unknown } = {},
): Promise<void> {
  await using upstream = await recordingUpstream();
  let host: Host | undefined;
  let world: World | undefined;
  const plugin = definePlugin({
    name: "asker",
    version: "1.0.0",
    apiVersion: 1,
    setup(ctx) {
      host = ctx.host;
      ctx.pipeline((_config, hooks) => {
        hooks.request.tap((exchange) => options.onRequest?.(exchange, ctx.host) as undefined);
        hooks.lifecycle.for("settled").tap((exchange, outcome) => world?.note(exchange, outcome));
      });
    },
  });
  await using tokenman = await startTokenman({
    plugins: [plugin],
    config: `${options.config ?? ""}\n[providers.openai]\napi_base = "${upstream.url}"\nauth = "${options.auth ?? "client"}"\n`,
  });
  world = new World(tokenman, upstream, () => host!);
  await use(world);
}

async function text(body: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
const fails = (code: string) => (error: TokenmanError) => {
  assert.equal(error.code, code);
  return true;
};

describe("an exchange that a plugin begins", () => {
  it("passes all hooks and goes out as a client's would, marked and named", limits, async () => {
    const seen: Exchange[] = [];
    await asking(
      async ({ ask, outcome, upstream }) => {
        upstream.next(wholeReply({ status: 201, headers: ["X-Theirs", "3"], body: "tea" }));
        const inner = ask({ project: "mine", session: "s-1" });
        const reply = await inner.reply;
        assert.equal(reply.status, 201);
        assert.equal(reply.headers[reply.headers.indexOf("X-Theirs") + 1], "3");
        assert.equal(await text(reply.body), "tea");
        const request = await upstream.request(1);
        assert.equal(request.target, "/v1/chat/completions");
        assert.ok(request.body.equals(BODY));
        assert.equal(request.header("authorization"), "Bearer sk-mine");
        assert.equal(request.header("x-mine"), "1");
        const settled = await outcome(inner.id);
        assert.equal(settled.outcome.kind, "answered");
        assert.equal(settled.outcome.bytesSent, 3);
        const [exchange] = seen;
        assert.equal(exchange, settled.exchange);
        assert.deepEqual(exchange?.madeBy, { plugin: "asker", parent: undefined, depth: 1 });
        assert.equal(exchange?.project, "mine");
        assert.equal(exchange?.session, "s-1");
        assert.equal(exchange?.dialect?.name, "openai-chat");
      },
      { onRequest: (exchange) => void seen.push(exchange) },
    );
  });

  it("streams at the pace of its reader, and decodes what is coded", limits, async () => {
    await asking(async ({ ask, upstream }) => {
      const rest = gate();
      upstream.next(
        steps(
          headBytes(200, ["Content-Type", "text/event-stream", "Connection", "close"]),
          "data: 1\n\n",
          rest.opened,
          "data: [DONE]\n\n",
          (call) => call.end(),
        ),
        wholeReply({ status: 200, headers: ["Content-Encoding", "gzip"], body: gzipSync("plain") }),
      );
      const { body } = await ask().reply;
      const chunks = body[Symbol.asyncIterator]();
      assert.equal((await chunks.next()).value?.toString(), "data: 1\n\n");
      rest.open();
      assert.equal((await chunks.next()).value?.toString(), "data: [DONE]\n\n");
      assert.equal((await chunks.next()).done, true);
      const coded = await ask().reply;
      assert.equal(coded.headers.includes("Content-Encoding"), false);
      assert.equal(await text(coded.body), "plain");
    });
  });

  it("holds its source back when nobody reads", limits, async () => {
    await asking(async ({ ask, outcome }) => {
      const inner = ask();
      await text((await inner.reply).body);
      const { exchange } = await outcome(inner.id);
      const source = new EndlessSource();
      const asker = new Asker(exchange as ExchangeState, Buffer.alloc(0));
      const head = { status: 200, headers: [] };
      const reply = new KernelReply(head, source, { origin: "plugin", maxBytes: 0 });
      const sent = asker.send(exchange as ExchangeState, reply);
      await asker.reply;
      const held = source.pushed;
      assert.ok(held > 1 && held <= 5, `${held} chunks of 64 KiB were taken in`);
      for (let read = 0; read < 20; read++) await asker.next();
      assert.ok(source.pushed >= 20 && source.pushed <= held + 20, `${source.pushed} after 20 were read`);
      await asker.return();
      assert.equal((await sent).end, "aborted");
      assert.equal(source.aborted, true);
    });
  });

  it("is called off at once, before the head and after it", limits, async () => {
    await asking(async ({ ask, outcome, upstream }) => {
      const closed = [gate(), gate()];
      const silent =
        (index: number, head: string) =>
        async (call: {
          closed: Promise<void>;
          write(text: string): Promise<void>;
          received: Promise<void>;
        }) => {
          await call.received;
          if (head !== "") await call.write(head);
          await call.closed;
          closed[index]!.open();
        };
      upstream.next(silent(0, ""), silent(1, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"));
      const early = ask();
      await upstream.request(1);
      early.abort();
      await assert.rejects(early.reply, fails("TM_CLIENT_GONE"));
      await closed[0]!.opened;
      assert.equal((await outcome(early.id)).outcome.kind, "aborted");
      const late = ask();
      const { body } = await late.reply;
      for await (const chunk of body) {
        assert.equal(chunk.toString(), "abc");
        break;
      }
      await closed[1]!.opened;
      assert.equal((await outcome(late.id)).outcome.kind, "aborted");
    });
  });

  it("tells what breaks its stream, and answers failures in the dialect's shape", limits, async () => {
    await asking(
      async ({ ask, outcome, upstream }) => {
        upstream.next(
          steps("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", (call) => call.reset()),
          (call) => call.reset(),
        );
        const cut = ask();
        await assert.rejects(text((await cut.reply).body), fails("TM_UPSTREAM_CUT"));
        assert.equal((await outcome(cut.id)).outcome.kind, "partial");
        const failed = await ask().reply;
        assert.equal(failed.status, 502);
        assert.equal(JSON.parse(await text(failed.body)).error.code, "TM_UPSTREAM_RESET");
        const large = await ask({ body: Buffer.alloc(2_001, " ") }).reply;
        assert.equal(large.status, 413);
        assert.equal(JSON.parse(await text(large.body)).error.code, "TM_BODY_TOO_LARGE");
        assert.equal(upstream.requests.length, 2);
      },
      { config: "[server]\nmax_body_size = 2000\n" },
    );
  });

  it("never takes TokenMan's own token along", limits, async () => {
    await asking(
      async ({ ask, upstream }) => {
        await text(
          (await ask({ headers: ["Authorization", "Bearer own-token", "X-Api-Key", "own-token"] }).reply)
            .body,
        );
        const request = await upstream.request(1);
        assert.equal(request.head.includes("own-token"), false);
      },
      { config: '[auth]\nenabled = true\ntoken = "own-token"\n', auth: "none" },
    );
  });

  it("has the project, the address and the id of its parent, and cannot nest for ever", limits, async () => {
    const depths: (number | undefined)[] = [];
    const codes: string[] = [];
    const parents: [string | undefined, string][] = [];
    await asking(
      async ({ tokenman }) => {
        const reply = await sendRequest(`${tokenman.proxy}/p/theirs/v1/chat/completions`, {
          headers: ["Content-Type", "application/json"],
          body: BODY,
        });
        assert.equal(reply.status, 200);
        assert.deepEqual(depths, [undefined, 1, 2, 3, 4]);
        assert.deepEqual(codes, ["TM_INTERNAL"]);
        for (const [index, [parent]] of parents.entries()) assert.equal(parent, parents[index - 1]?.[1]);
      },
      {
        onRequest: async (exchange, host) => {
          depths.push(exchange.madeBy?.depth);
          parents.push([exchange.madeBy?.parent, exchange.id]);
          assert.equal(exchange.project, "theirs");
          assert.equal(exchange.request.remoteAddress, "127.0.0.1");
          try {
            const inner = host.exchange({
              plugin: "asker",
              path: "/v1/chat/completions",
              headers: [],
              body: BODY,
              parent: exchange,
            });
            await text((await inner.reply).body);
          } catch (error) {
            codes.push((error as TokenmanError).code);
          }
        },
      },
    );
  });

  it(
    "ends with TokenMan: refused while it drains unless a part of a request, broken off after",
    limits,
    async () => {
      const heads = gate<string[]>();
      await asking(
        async ({ ask, upstream, tokenman }) => {
          const parentGo = gate();
          upstream.next(
            steps(parentGo.opened, (call) => call.reply({ status: 200, body: "inner" })),
            wholeReply({ status: 200, body: "outer" }),
            async (call) => {
              await call.received;
              await call.closed;
            },
          );
          const outer = sendRequest(`${tokenman.proxy}/v1/chat/completions`, { body: BODY });
          await upstream.request(1);
          const ending = tokenman.kernel.shutdown({ drainMs: 15_000, reason: "test" });
          const alone = await ask().reply;
          assert.equal(alone.status, 503);
          await text(alone.body);
          parentGo.open();
          assert.equal((await outer).body.toString(), "outer");
          assert.deepEqual(await heads.opened, ["inner"]);
          await ending;
        },
        {
          onRequest: async (exchange, host) => {
            if (exchange.madeBy !== undefined) return;
            const inner = host.exchange({
              plugin: "asker",
              path: "/v1/chat/completions",
              headers: [],
              body: BODY,
              parent: exchange,
            });
            heads.open([await text((await inner.reply).body)]);
          },
        },
      );
    },
  );

  it("is broken off when the drain is over", limits, async () => {
    await asking(async ({ ask, outcome, upstream, tokenman }) => {
      upstream.next(async (call) => {
        await call.received;
        await call.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
        await call.closed;
      });
      const inner = ask();
      const { body } = await inner.reply;
      const reading = text(body);
      const settled = outcome(inner.id);
      await Promise.all([
        assert.rejects(reading, fails("TM_SHUTTING_DOWN")),
        tokenman.kernel.shutdown({ drainMs: 0, reason: "test" }),
      ]);
      assert.deepEqual(
        [(await settled).outcome.kind, (await settled).outcome.code],
        ["failed", "TM_SHUTTING_DOWN"],
      );
    });
  });
});
