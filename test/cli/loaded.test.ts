import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, describe, it } from "node:test";
import { pathToFileURL } from "node:url";
import { recordingUpstream, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { bundle } from "../../scripts/bundle.ts";
import { Sandbox } from "./support/instance.ts";

interface Loaded {
  /** Addresses of modules that are neither Node's nor in its snapshot. */
  readonly files: readonly string[];
  /** Names of the threads that were started. */
  readonly threads: readonly string[];
  /** As `process.moduleLoadList` has them. */
  readonly builtins: readonly string[];
}

const ROOT = join(import.meta.dirname, "../..");
const REPORT = pathToFileURL(join(import.meta.dirname, "support", "loaded-report.mjs")).href;
const USAGE = { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 };
const ANSWER = { id: "1", object: "chat.completion", model: "gpt-4o", choices: [], usage: USAGE };

function socketOf(box: Sandbox): string {
  return join(box.folder, "loaded");
}
async function loaded(box: Sandbox): Promise<Loaded> {
  return JSON.parse(await text(connect(socketOf(box)))) as Loaded;
}

describe("what the built program has in memory", { timeout: 60_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), "loaded-"));
  before(() => bundle(ROOT, folder));
  after(() => rmSync(folder, { recursive: true, force: true }));

  function sandbox(config: string): Sandbox {
    const box = new Sandbox(config, { NODE_OPTIONS: `--import=${REPORT}` }, join(folder, "main.mjs"));
    box.env["LOADED_SOCKET"] = socketOf(box);
    return box;
  }

  it("is what it needs to wait for requests; the rest comes with the first that needs it", async () => {
    await using upstream = await recordingUpstream({
      script: wholeReply({
        status: 200,
        headers: ["content-type", "application/json"],
        body: JSON.stringify(ANSWER),
      }),
    });
    await using box = sandbox(
      `[providers.openai]\nauth = "client"\napi_base = "${upstream.url}"\n[routing]\ndefault_provider = "openai"\n`,
    );
    const { proxy } = await box.serve();
    const idle = await loaded(box);
    assert.ok(idle.files.length > 20, "loading is seen");
    for (const late of [/genai-prices/, /tiktoken|o200k|cl100k/, /esbuild/, /toml-eslint-parser/])
      assert.deepEqual(
        idle.files.filter((file) => late.test(file)),
        [],
        String(late),
      );
    assert.deepEqual(idle.threads, ["ledger writer"]);

    const reply = await fetch(`${proxy}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: "Bearer sk-test", "content-type": "application/json" },
      body: JSON.stringify({ model: "gpt-4o", messages: [{ role: "user", content: "Hi" }] }),
    });
    assert.equal(reply.status, 200, await reply.text());
    assert.ok(
      (await loaded(box)).files.some((file) => /genai-prices/.test(file)),
      "the first bill",
    );
  });

  it("starts no thread where nothing is kept", async () => {
    await using box = sandbox("[plugins]\norder = []\n");
    await box.serve();
    assert.deepEqual((await loaded(box)).threads, []);
  });

  it("leaves out what Node's own modules load for those who import all of them", async () => {
    await using box = sandbox("");
    await box.serve();
    const { builtins } = await loaded(box);
    assert.ok(builtins.includes("NativeModule http"));
    for (const name of ["internal/deps/undici/undici", "http2", "internal/crypto/webcrypto", "sqlite"])
      assert.ok(!builtins.includes(`NativeModule ${name}`), name);
  });
});
