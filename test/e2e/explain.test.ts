import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Sandbox } from "../cli/support/instance.ts";
import { golden } from "../support/golden.ts";

/** A third party's plugin, as one drops it into the plugins folder. */
const ADD_HEADER = `import { definePlugin, withHeader } from "@tokenman/plugin-sdk";
export default definePlugin({
  name: "add-header", version: "2.1.0", apiVersion: 1, stage: "shape",
  setup(ctx) {
    ctx.pipeline((_, hooks) => {
      hooks.request.tap(() => {});
      hooks.response.tap((reply) => { reply.headers = withHeader(reply.headers, "X-Added", "1"); });
    });
  },
});
`;

/** What `tokenman plugins --explain` prints, with TokenMan's own plugins as they are. */
async function explained(toml: string, ...args: readonly string[]): Promise<string> {
  await using sandbox = new Sandbox();
  const plugins = join(sandbox.folder, "plugins");
  mkdirSync(plugins, { mode: 0o755 });
  writeFileSync(join(plugins, "add-header.ts"), ADD_HEADER, { mode: 0o644 });
  sandbox.config(toml.replace("{plugins}", JSON.stringify(plugins)));
  const { status, stdout, stderr } = await sandbox.run("plugins", "--explain", ...args);
  assert.equal(status, 0, stderr);
  return stdout.trimEnd().replaceAll(sandbox.folder, "/home/me/.tokenman");
}

describe("tokenman plugins --explain", () => {
  it("shows what a TokenMan without a config does", async () => {
    await golden("explain/default.txt", await explained(""));
  });

  it("shows a project's way, a third party's plugin in it, and why others are off", async () => {
    const toml = `[plugins]
dir = {plugins}
[projects.work]
disable = ["metrics", "access-log"]
[projects.work.security.budget]
enabled = true
`;
    await golden("explain/project.txt", await explained(toml, "--project", "work"));
  });

  it("warns of an order that turns stages around, and suggests a better one", async () => {
    const toml = `[plugins]
dir = {plugins}
order = ["add-header", "budget", "recorder", "tokenizer", "store", "access-log"]
`;
    await golden("explain/broken-order.txt", await explained(toml));
  });

  it("warns of settings without a plugin yet, and of what a project cannot do without", async () => {
    const toml = `[security.pii]
action = "redact"
[tracing]
enabled = true
[dashboard]
auto_open = true
[projects.web]
disable = ["router", "acess-log"]
`;
    const [, warnings = ""] = (await explained(toml)).split("\n\n");
    assert.equal(
      warnings.replaceAll(/\s+/g, " "),
      "Warnings: - these settings are of features that do not exist yet and have no effect: security.pii, tracing, dashboard " +
        "- projects.web.disable: router is always on for a reason: every project needs anthropic, openai, mock, router, health; " +
        "without them its requests may find no provider " +
        "- projects.web.disable: there is no plugin acess-log, did you mean access-log?",
    );
  });
});
