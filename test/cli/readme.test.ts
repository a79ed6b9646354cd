import assert from "node:assert/strict";
import { existsSync, globSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { Sandbox } from "./support/instance.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const README = readFileSync(join(ROOT, "README.md"), "utf8");

/** The README's first curl calls: path and body. */
const calls = [...README.matchAll(/^curl (?:-N )?http:\/\/localhost:7677(\S+).*\\\n +-d '(.+)'$/gm)].map(
  ([, path = "", body = ""]) => ({ path, body }),
);
const plugin = /```ts\n(\/\/ my-plugin\.ts\n[\s\S]+?)```/.exec(README)?.[1] ?? "";

test("the README's first calls answer in both dialects, streamed and not, without a key", async () => {
  assert.equal(calls.length, 4);
  await using box = new Sandbox();
  const { proxy } = await box.serve();
  for (const { path, body } of calls) {
    const reply = await fetch(proxy + path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });
    const text = await reply.text();
    assert.equal(reply.status, 200, text);
    const { stream = false, messages } = JSON.parse(body);
    assert.equal(reply.headers.get("content-type")?.startsWith("text/event-stream"), stream);
    const end = path.endsWith("/messages") ? "event: message_stop" : "data: [DONE]";
    assert.ok(text.includes(stream ? end : messages[0].content), text);
  }
});

test("the README's plugin runs as the README says", async () => {
  await using box = new Sandbox('[plugins.configs.my-plugin]\nteam = "blue"\n');
  writeFileSync(join(box.folder, "my-plugin.ts"), plugin);
  const { proxy } = await box.serve("--plugins", "+./my-plugin.ts");
  const ask = (model: string) =>
    fetch(`${proxy}/v1/messages`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model, max_tokens: 9, messages: [{ role: "user", content: "hi" }] }),
    });
  const passed = await ask("mock");
  assert.deepEqual([passed.status, passed.headers.get("x-team")], [200, "blue"]);
  const refused = await ask("forbidden");
  assert.equal(refused.status, 404);
  assert.match(await refused.text(), /"type":"error".*Not this model\./);
});

test("the config that the README shows loads", async () => {
  await using box = new Sandbox(/```toml\n(\[providers\.local\][\s\S]+?)```/.exec(README)?.[1]);
  const { status, stderr } = await box.run("plugins", "--project", "web");
  assert.deepEqual([status, stderr], [0, ""]);
});

test("every link between the repository's pages leads somewhere", () => {
  const pages = globSync("**/*.md", { cwd: ROOT, exclude: ["**/node_modules/**", "**/dist/**"] });
  const broken = pages.flatMap((page) =>
    [...readFileSync(join(ROOT, page), "utf8").matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)]
      .map(([, target = ""]) => target)
      .filter((target) => !existsSync(join(ROOT, dirname(page), target)))
      .map((target) => `${page}: ${target}`),
  );
  assert.deepEqual(broken, []);
});
