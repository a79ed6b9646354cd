import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { CommandContext } from "@tokenman/plugin-sdk";
import { faults } from "@tokenman/plugin-sdk/testkit";
import { routeCommand } from "../../plugins/router/commands.ts";
import { provider, type Routed, startRouted } from "../support/routed.ts";

const limits = { timeout: 30_000 };
process.env["ROUTER_COMMAND_ONE"] = "sk-secret-one";
process.env["ROUTER_COMMAND_TWO"] = "sk-secret-two";

async function route(
  it: Routed,
  model: string,
  options: Readonly<Record<string, unknown>> = {},
): Promise<string> {
  const lines: string[] = [];
  await routeCommand.run({
    args: { model },
    options: { key: true, ...options },
    fetch: (path: string) => fetch(it.tokenman.dashboard + path),
    print: (line: string) => void lines.push(line),
  } as unknown as CommandContext);
  return lines.join("\n");
}

const routed = () =>
  startRouted(
    1,
    ([url]) =>
      [
        "[resilience]\ncb_failure_threshold = 1\nretry_max_attempts = 0\n",
        provider("openai", { api_base: "https://api.openai.com" }),
        provider("anthropic", { enabled: false }),
        provider("many", {
          format: "openai",
          api_base: url,
          key_ref: ["env:ROUTER_COMMAND_ONE", "env:ROUTER_COMMAND_TWO"],
          models: ["llama-*"],
        }),
        provider("keyless", { format: "openai", api_base: "https://gw.example" }),
        '[routing]\ndefault_provider = "openai"\n[routing.model_map]\nfast = "many/llama-1"\n',
      ].join(""),
    "retry,breaker",
  );

describe("tokenman route", () => {
  it(
    "shows who would be asked, in which order, with whose key, and who would not and why",
    limits,
    async () => {
      await using it = await routed();
      assert.equal(
        await route(it, "llama-3", { format: "openai" }),
        [
          "Clients of the openai format",
          "  1.  many#1   its own key       lists the model llama-3, with key 1 of 2",
          "  2.  many#2   its own key       lists the model llama-3, with key 2 of 2",
          "  3.  openai   the client's key  routing.default_provider",
          '  -   keyless                    has no key of its own (key_ref, or auth = "none"), and the client\'s credential belongs to openai',
        ].join("\n"),
      );
      assert.match(
        await route(it, "fast", { format: "openai" }),
        /1\. {2}many#1 {2}as llama-1 {2}its own key/,
      );
      assert.match(
        await route(it, "claude-x"),
        /Clients of the anthropic format\n {2}- {2}mock .*\n {2}- {2}openai {3}speaks the openai format/,
      );
      assert.match(await route(it, "gpt-5", { format: "openai", key: false }), /1\. {2}openai {3}no key/);
    },
  );

  it("shows circuits that are open, keys that are left alone, and no secret", limits, async () => {
    await using it = await routed();
    it.upstreams[0]!.next(faults.status(429, { headers: ["Retry-After", "90"] }), faults.status(500));
    await it.post("/v1/chat/completions", { model: "fast", messages: [] });
    await it.post("/v1/chat/completions", { model: "fast", messages: [] });
    const shown = await route(it, "fast", { format: "openai" });
    assert.match(shown, /many#1 .*; left alone for (?:89|90) s/);
    assert.match(shown, /many#2 .*; its circuit is open/);
    const json = await route(it, "fast", { format: "openai", json: true });
    assert.doesNotMatch(json, /sk-secret/);
    const [{ candidates }] = JSON.parse(json) as [{ candidates: { account: string; circuit: string }[] }];
    assert.deepEqual(
      candidates.map(({ account, circuit }) => [account, circuit]),
      [
        ["many#1", "open"],
        ["many#2", "open"],
      ],
    );
  });

  it("says what it does not understand", limits, async () => {
    await using it = await routed();
    await assert.rejects(route(it, "x", { format: "opeanai" }), /format=anthropic or openai/);
    assert.equal((await fetch(`${it.tokenman.dashboard}/api/route`)).status, 400);
  });
});
