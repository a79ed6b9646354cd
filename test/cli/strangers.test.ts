import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, test } from "node:test";
import { Sandbox } from "./support/instance.ts";

/** Every command that asks the instance. */
const ASKING = [
  ["stats"],
  ["stats", "--by", "model"],
  ["stats", "--by", "day"],
  ["stats", "--json"],
  ["requests"],
  ["requests", "--follow"],
  ["savings"],
  ["cache", "stats"],
  ["cache", "purge"],
  ["circuit"],
  ["circuit", "anthropic", "open"],
  ["route", "claude-opus-4-5"],
] as const;

/** Another program on a port of this machine, and what it was asked. */
async function stranger(answer: RequestListener) {
  const server = createServer(answer).listen(0, "127.0.0.1");
  await once(server, "listening");
  let connections = 0;
  server.on("connection", () => connections++);
  return {
    port: (server.address() as AddressInfo).port,
    connections: () => connections,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

describe("a command that asks the instance", { timeout: 120_000 }, () => {
  test("asks nobody where none runs and the config file is broken, and tells no token", async () => {
    await using other = await stranger((_request, response) => response.end("{}"));
    await using box = new Sandbox();
    const data = `data_dir = ${JSON.stringify(box.dataDir)}\n`;
    const auth = '[auth]\ntoken = "a-token-that-nobody-is-to-hear"\n';
    writeFileSync(
      box.configFile,
      `[server]\n${data}dashboard_port = ${other.port}\nlog_level = "info\n${auth}`,
    );
    for (const words of ASKING) {
      const { status, stdout, stderr } = await box.run(...words);
      assert.deepEqual([status, stdout], [69, ""], `${words.join(" ")}: ${stderr}`);
      assert.match(stderr, /TM_CONFIG_SYNTAX[\s\S]*TM_NOT_RUNNING no TokenMan runs with .*too broken to say/);
    }
    // A port that cannot be read is no reason to ask on the default one.
    writeFileSync(box.configFile, `[server]\n${data}dashboard_port = 90o0\n${auth}`);
    const { status, stderr } = await box.run("cache", "purge");
    assert.equal(status, 69, stderr);
    assert.match(stderr, /TM_CONFIG_SYNTAX[\s\S]*TM_NOT_RUNNING no TokenMan runs with .*too broken to say/);
    assert.equal(other.connections(), 0);
  });

  test("says who answers where that is another program, and takes nothing from its answer", async () => {
    const answers: RequestListener[] = [
      (_request, response) => response.setHeader("content-type", "application/json").end("{}"),
      (_request, response) => response.end("<h1>It works!</h1>"),
    ];
    for (const answer of answers) {
      await using other = await stranger(answer);
      await using box = new Sandbox();
      writeFileSync(
        box.configFile,
        `[server]\ndata_dir = ${JSON.stringify(box.dataDir)}\ndashboard_port = ${other.port}\n`,
      );
      const said = new RegExp(
        `^tokenman: TM_NOT_RUNNING what answers at http://127\\.0\\.0\\.1:${other.port} is no TokenMan \\d[^\\n]*\\n$`,
      );
      for (const words of ASKING) {
        const { status, stdout, stderr } = await box.run(...words);
        assert.deepEqual([status, stdout], [69, ""], `${words.join(" ")}: ${stderr}`);
        assert.match(stderr, said, words.join(" "));
      }
    }
  });

  test("and those of the instance itself do so, too, where its record leads to another program", async () => {
    await using box = new Sandbox();
    await box.run("start");
    const { record } = box;
    await using other = await stranger((_request, response) => response.end("{}"));
    const url = `http://127.0.0.1:${other.port}`;
    const file = `${box.dataDir}/tokenman.pid`;
    writeFileSync(file, JSON.stringify({ ...record, dashboard: url }));
    for (const words of [["status"], ["reload"]]) {
      const { status, stdout, stderr } = await box.run(...words);
      assert.deepEqual([status, stdout], [69, ""], stderr);
      assert.match(stderr, new RegExp(`^tokenman: TM_NOT_RUNNING what answers at ${url} is no TokenMan`));
    }
    writeFileSync(file, JSON.stringify(record));
    assert.equal((await box.run("stop")).status, 0);
  });
});
