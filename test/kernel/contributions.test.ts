import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Dialect, definePlugin, type Plugin } from "@tokenman/plugin-sdk";
import { sendRequest } from "@tokenman/plugin-sdk/testkit";
import { Sandbox } from "../cli/support/instance.ts";
import { startTokenman } from "../support/kernel.ts";
import { runKernel } from "../support/running-kernel.ts";
import { candidatesOf, providerOf, testDialect, witness } from "./support/routing.ts";

const limits = { timeout: 20_000 };

/** Serves `/v1/test` in this process, with whatever `body` gives, and asks for its usage. */
function serving(body: () => string | AsyncIterable<Buffer>, dialect: Partial<Dialect> = {}): Plugin {
  const provider = providerOf("here", () => ({
    status: 200,
    headers: ["content-type", "text/plain"],
    body: body(),
  }));
  return definePlugin({
    name: "serving",
    version: "1.0.0",
    apiVersion: 1,
    stage: "route",
    setup(ctx) {
      ctx.contribute("dialect", { ...testDialect, ...dialect });
      ctx.pipeline((_, hooks) => {
        hooks.request.tap((exchange) => {
          exchange.trackUsage();
          exchange.candidates = candidatesOf([provider]);
        });
      });
    },
  });
}

describe("a dialect that fails over a reply's usage", () => {
  it("costs the usage, not the reply", limits, async () => {
    const usageReader = () => {
      throw new Error("no usage today");
    };
    const seen = witness();
    await using kernel = await runKernel([seen.plugin, serving(() => "an answer", { usageReader })]);
    const reply = await sendRequest(`${kernel.proxy}/v1/test`, { body: "{}" });
    assert.equal(reply.status, 200);
    assert.equal(reply.body.toString(), "an answer");
    assert.equal((await seen.settled())[0]!.kind, "answered");
  });
});

describe("a body whose iterator throws when it is called off", () => {
  it("is called off all the same, and the next request is served", limits, async () => {
    let calledOff = 0;
    const endless = (): AsyncIterable<Buffer> => ({
      [Symbol.asyncIterator]: () => {
        let first = true;
        return {
          next() {
            if (!first) return new Promise(() => {});
            first = false;
            return Promise.resolve({ done: false, value: Buffer.from("a beginning") });
          },
          return() {
            calledOff++;
            throw new Error("not now");
          },
        };
      },
    });
    const seen = witness();
    const bodies = [endless, () => "whole"];
    await using kernel = await runKernel([seen.plugin, serving(() => bodies.shift()!())]);
    const leaving = new AbortController();
    const cut = await fetch(`${kernel.proxy}/v1/test`, {
      method: "POST",
      body: "{}",
      signal: leaving.signal,
    });
    await cut.body!.getReader().read();
    leaving.abort();
    assert.equal((await seen.settled())[0]!.kind, "aborted");
    assert.equal(calledOff, 1);
    assert.equal((await sendRequest(`${kernel.proxy}/v1/test`, { body: "{}" })).body.toString(), "whole");
  });
});

describe("the names of plugins in a config file", () => {
  it("are told with their place where there is no such plugin", limits, async () => {
    await using box = new Sandbox('[plugins]\norder = ["router",\n  "acess-log"]\n');
    const { status, stderr } = await box.run("start", "--foreground");
    assert.equal(status, 78);
    assert.match(stderr, /tokenman\.toml:7:3: TM_PLUGIN_NOT_FOUND no plugin named "acess-log"/);
  });
  it("are warned of where a project disables one that does not exist", limits, async () => {
    await using tokenman = await startTokenman({ config: '[projects.web]\ndisable = ["ruoter"]\n' });
    const warning = "projects.web.disable: there is no plugin ruoter, did you mean router?";
    assert.ok(tokenman.log.some(({ message }) => message === warning));
  });
});

describe("a contribution of a kind that there is not", () => {
  const contributing = (kind: string, value: unknown): Plugin =>
    definePlugin({
      name: "giver",
      version: "1.0.0",
      apiVersion: 1,
      setup(ctx) {
        ctx.contribute(kind as "panel", value as never);
      },
    });
  const refusals: readonly (readonly [kind: string, value: unknown, says: RegExp])[] = [
    [
      "rout",
      {},
      /plugin "giver" contributed a "rout", which is no kind of contribution; there are .*route.*Did you mean "route"\?/,
    ],
    ["nope", {}, /contributed a "nope", which is no kind of contribution; there are format, dialect, [^?]*$/],
    ["constructor", {}, /contributed a "constructor", which is no kind/],
    ["panel", null, /plugin "giver" contributed null as panel; expected an object/],
    ["metric", "text", /plugin "giver" contributed a string as metric; expected an object/],
  ];
  for (const [kind, value, says] of refusals) {
    it(`is refused with those there are: ${kind} ${JSON.stringify(value)}`, limits, async () => {
      await assert.rejects(runKernel([contributing(kind, value)]), says);
    });
  }
});
