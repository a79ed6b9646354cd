import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, test } from "node:test";
import { TokenmanErrors } from "@tokenman/plugin-sdk";
import { createLog } from "../../cli/log.ts";
import { plannedSections } from "../../cli/planned.ts";
import { firstParty } from "../../cli/registry.ts";
import { createKernel } from "../../kernel/kernel.ts";
import { Sandbox } from "./support/instance.ts";

const FAULTY = `import { definePlugin } from "@tokenman/plugin-sdk";
export default definePlugin({
  name: "faulty", version: "1.0.0", apiVersion: 1, stage: "route",
  setup() { throw new Error("not today"); },
});
`;

/** What is in the data folder; of one that is not there, nothing. */
const left = ({ dataDir }: Sandbox) => (existsSync(dataDir) ? readdirSync(dataDir).sort() : []);

/** The kernel of a start, in this process. */
const kernelIn = ({ configFile }: Sandbox) =>
  createKernel({
    version: "0.0.0",
    configFile,
    env: {},
    registry: firstParty,
    planned: plannedSections,
    log: createLog("silent"),
    opensPorts: true,
  });

describe("a start that fails", { concurrency: 2, timeout: 120_000 }, () => {
  test("because a plugin does leaves nothing that it made, and what was there before stays", async () => {
    await using box = new Sandbox('[access_log]\nfile = "data/access.jsonl"\n[plugins]\ndir = "plugins"\n');
    mkdirSync(join(box.folder, "plugins"));
    writeFileSync(join(box.folder, "plugins", "faulty.ts"), FAULTY);
    const failed = await box.run("start", "--foreground");
    assert.equal(failed.status, 78, failed.stderr);
    assert.match(failed.stderr, /TM_PLUGIN_SETUP .*not today/);
    assert.deepEqual(left(box), []);
    const inBackground = await box.run("start");
    assert.equal(inBackground.status, 78, inBackground.stderr);
    assert.deepEqual(left(box), ["tokenman.log"]);

    writeFileSync(join(box.folder, "plugins", "faulty.ts"), FAULTY.replace("throw", "return; throw"));
    assert.equal((await box.run("start")).status, 0);
    assert.equal((await box.run("stop")).status, 0);
    const before = left(box);
    assert.ok(before.includes("ledger.db") && before.includes("access.jsonl"), before.join());
    writeFileSync(join(box.folder, "plugins", "faulty.ts"), FAULTY);
    assert.equal((await box.run("start")).status, 78);
    assert.deepEqual(left(box), before);
  });

  test("leaves a link alone that led nowhere before", async () => {
    await using box = new Sandbox('[plugins]\ndir = "plugins"\n');
    mkdirSync(box.dataDir);
    symlinkSync("nowhere", join(box.dataDir, "cache"));
    mkdirSync(join(box.folder, "plugins"));
    writeFileSync(join(box.folder, "plugins", "faulty.ts"), FAULTY);
    const start = kernelIn(box);
    await assert.rejects(start, TokenmanErrors);
    assert.ok(left(box).includes("cache"), left(box).join());
  });

  test("because a port was taken since it was found free gives all back", async () => {
    await using box = new Sandbox();
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    const { port } = other.address() as { port: number };
    await new Promise((resolve) => other.close(resolve));
    writeFileSync(
      box.configFile,
      `[server]\nproxy_port = ${port}\ndashboard_port = 0\ndata_dir = ${JSON.stringify(box.dataDir)}\n`,
    );
    const kernel = await kernelIn(box);
    await new Promise<void>((resolve) => other.listen(port, "127.0.0.1", resolve));
    try {
      await assert.rejects(kernel.start(), (error) => {
        assert.ok(error instanceof TokenmanErrors);
        assert.deepEqual([error.errors[0]?.code, error.exit], ["TM_PORT_IN_USE", 69]);
        return true;
      });
      assert.deepEqual(left(box), []);
    } finally {
      other.close();
    }
  });

  test("because of its certificate says so at the key, with the configuration's other problems", async () => {
    await using box = new Sandbox(
      'tls_enabled = true\ncert_file = "no.pem"\nkey_file = "key.pem"\n[watch]\ndebounce = 3\n',
    );
    writeFileSync(join(box.folder, "key.pem"), "no key");
    const first = await box.run("start", "--foreground");
    assert.equal(first.status, 78, first.stderr);
    assert.match(
      first.stderr,
      /tokenman\.toml:6:13: TM_CONFIG_INVALID server\.cert_file: expected a certificate chain \(PEM\), found no file at .*no\.pem/,
    );
    assert.match(
      first.stderr,
      /tokenman\.toml:7:12: TM_CONFIG_INVALID server\.key_file: .* found something else at/,
    );
    assert.match(first.stderr, /TM_CONFIG_UNKNOWN_KEY watch\.debounce/);
    assert.deepEqual(left(box), []);
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    writeFileSync(join(box.folder, "key.pem"), privateKey.export({ type: "pkcs8", format: "pem" }));
    const second = await box.run("start");
    assert.doesNotMatch(second.stderr, /server\.key_file/, "a key that can be read is none of its problems");
  });
});
