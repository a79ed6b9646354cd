import assert from "node:assert/strict";
import test from "node:test";
import { definePlugin, optional, service, TokenmanErrors, withHeader, z } from "@tokenman/plugin-sdk";
import { installHost, runPlugin } from "@tokenman/plugin-sdk/testkit";
import { testHost } from "../../cli/test-host.ts";

installHost(testHost);

interface Dictionary {
  translate(word: string): string;
}
const Dictionary = service<Dictionary>("TestDictionary");
const Unmet = service<string>("TestUnmet");

/** Replaces each user text by what the dictionary makes of it. */
const translator = definePlugin({
  name: "translator",
  version: "1.0.0",
  apiVersion: 1,
  configSchema: z.strictObject({ suffix: z.string().default(""), refuse: z.boolean().default(false) }),
  needs: { dictionary: Dictionary, unmet: optional(Unmet) },
  setup(ctx) {
    const { dictionary } = ctx.services;
    ctx.pipeline((config, hooks) => {
      hooks.request.tap((exchange) => {
        if (config.refuse) return exchange.refuse({ code: "TM_BAD_REQUEST", message: "not today" });
        for (const segment of exchange.segments)
          if (segment.role === "user")
            exchange.edit(segment, dictionary.translate(segment.text) + config.suffix);
        return undefined;
      });
      hooks.beforeUpstream.tap((_exchange, attempt) => {
        if (attempt.number === 1 && attempt.provider.name === "tired") return { skip: "it is tired" };
        attempt.headers = withHeader(attempt.headers, "X-Attempt", String(attempt.number));
        return undefined;
      });
      hooks.response.tap((reply) => {
        reply.mapEvents({ event: (event) => (event.data === "quiet" ? undefined : event) });
        reply.headers = withHeader(reply.headers, "X-Translated", "yes");
      });
    });
  },
});
const services = { dictionary: { translate: (word: string) => word.toUpperCase() } };
const body = Buffer.from('{"model":"m", "n":1.0, "messages":[{"role":"user","content":"hi"}]}');

test("edits reach the provider, spliced into the client's bytes", async () => {
  await using run = await runPlugin(translator, { services, config: { suffix: "!" } });
  const { upstream, reply, outcome, exchange } = await run.send({ path: "/v1/chat/completions", body });
  assert.equal(
    String(upstream[0]?.body),
    '{"model":"m", "n":1.0, "messages":[{"role":"user","content":"HI!"}]}',
  );
  assert.equal(upstream[0]?.header("x-attempt"), "1");
  assert.equal(exchange.dialect?.name, "openai-chat");
  assert.equal(reply.status, 200);
  assert.equal(outcome.kind, "answered");
});

test("a project has its own config", async () => {
  await using run = await runPlugin(translator, {
    services,
    file: { projects: { strict: { plugins: { configs: { translator: { refuse: true } } } } } },
  });
  const refused = await run.send({ path: "/v1/messages", body, project: "strict" });
  assert.equal(refused.reply.status, 400);
  assert.match(String(refused.reply.body), /not today/);
  assert.deepEqual(
    [refused.outcome.kind, refused.outcome.code, refused.reply.plugin],
    ["refused", "TM_BAD_REQUEST", "translator"],
  );
  assert.equal(refused.upstream.length, 0);
  assert.equal((await run.send({ path: "/v1/messages", body })).reply.status, 200);
});

test("a skipped provider is passed over, and streams go through the event transforms", async () => {
  await using run = await runPlugin(translator, { services, providers: ["tired", "awake"] });
  const { upstream, reply, exchange } = await run.send(
    { path: "/v1/messages", body },
    {
      status: 200,
      headers: ["content-type", "text/event-stream"],
      body: "data: quiet\n\ndata: loud\n\n",
    },
  );
  assert.deepEqual(
    upstream.map(({ provider }) => provider),
    ["awake"],
  );
  assert.deepEqual(
    exchange.attempts.map(({ result }) => result?.kind),
    ["skipped", "reply"],
  );
  assert.equal(String(reply.body), "data: loud\n\n");
  assert.ok(reply.headers.includes("X-Translated"));
});

test("a provider's failure, before the head and within the body, is what the client would see", async () => {
  await using run = await runPlugin(translator, { services });
  const down = await run.send({ path: "/v1/messages", body }, () => {
    throw new Error("down");
  });
  assert.equal(down.outcome.kind, "refused");
  assert.equal(down.reply.origin, "kernel");
  const cut = await run.send(
    { path: "/v1/messages", body },
    {
      status: 200,
      headers: ["content-type", "text/plain"],
      body: (async function* () {
        yield Buffer.from("half");
        throw new Error("cut");
      })(),
    },
  );
  assert.deepEqual(
    [String(cut.reply.body), cut.reply.complete, cut.outcome.kind],
    ["half", false, "partial"],
  );
});

test("what the kernel makes of a plugin's failure is to be seen", async () => {
  await using run = await runPlugin(translator, {
    services: {
      dictionary: {
        translate() {
          throw new Error("no such word");
        },
      },
    },
  });
  const { upstream } = await run.send({ path: "/v1/messages", body });
  assert.deepEqual(upstream[0]?.body, body);
  assert.equal(run.log.filter(({ message }) => message === "plugin failed").length, 1);
  assert.equal(run.status().plugins.find(({ name }) => name === "translator")?.failures, 1);
});

test("an unmet service, a wrong config and an unknown stand-in are errors of the set-up", async () => {
  await assert.rejects(runPlugin(translator), TokenmanErrors);
  await assert.rejects(runPlugin(translator, { services, config: { suffix: 1 } }), /suffix/);
  await assert.rejects(runPlugin(translator, { services: { ...services, dictonary: {} } }), RangeError);
});
