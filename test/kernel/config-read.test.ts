import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { TokenmanErrors } from "@tokenman/plugin-sdk";
import { coreFromRaw, parseConfig, readConfig } from "../../kernel/config/index.ts";
import { raw } from "./config-fixture.ts";

function folder(t: { after(fn: () => void): void }): string {
  const path = mkdtempSync(join(tmpdir(), "tokenman-config-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Root may read everything: as root, it is done as a user who may only reach the folder. */
function asNobody(home: string, act: () => void): void {
  const asRoot = process.geteuid?.() === 0;
  if (asRoot) {
    chmodSync(home, 0o755);
    process.seteuid!(65_534);
  }
  try {
    act();
  } finally {
    if (asRoot) process.seteuid!(0);
  }
}

function failure(run: () => unknown): TokenmanErrors {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof TokenmanErrors, String(error));
    return error;
  }
  throw new assert.AssertionError({ message: "nothing was thrown" });
}

test("without a file in the default place there is no file, and no error", (t) => {
  const config = readConfig({ env: {}, home: folder(t) });
  assert.equal(config.file, undefined);
  assert.deepEqual(Object.keys(config.table), []);
});

test("the default place, TOKENMAN_CONFIG and --config are tried from the last to the first", (t) => {
  const home = folder(t);
  const write = (name: string, port: number) => {
    writeFileSync(join(home, name), `[server]\nproxy_port = ${port}\n`);
    return join(home, name);
  };
  mkdirSync(join(home, ".tokenman"));
  write(".tokenman/tokenman.toml", 1);
  const second = write("second.toml", 2);
  const third = write("third.toml", 3);
  const port = (file: string | undefined, env: Record<string, string>) =>
    coreFromRaw(readConfig({ file, env, home })).server.proxy_port;
  assert.equal(port(undefined, {}), 1);
  assert.equal(port(undefined, { TOKENMAN_CONFIG: "" }), 1);
  assert.equal(port(undefined, { TOKENMAN_CONFIG: second }), 2);
  assert.equal(port(third, { TOKENMAN_CONFIG: second }), 3);
  assert.equal(port("~/third.toml", {}), 3);
});

test("a file that was asked for and cannot be read is an error that says why", (t) => {
  const home = folder(t);
  const missing = failure(() => readConfig({ file: join(home, "no.toml"), env: {}, home })).errors[0]!;
  assert.equal(missing.code, "TM_CONFIG_UNREADABLE");
  assert.equal(missing.exit, 78);
  assert.equal(
    missing.describe(),
    `${join(home, "no.toml")}: TM_CONFIG_UNREADABLE the config file cannot be read: there is no such file`,
  );
  assert.equal((missing.cause as NodeJS.ErrnoException).code, "ENOENT");

  const isFolder = failure(() => readConfig({ env: { TOKENMAN_CONFIG: home }, home })).errors[0]!;
  assert.match(isFolder.message, /it is a folder$/);

  writeFileSync(join(home, "bytes.toml"), Buffer.from([0x61, 0x3d, 0x22, 0xff, 0x22]));
  const notUtf8 = failure(() => readConfig({ file: join(home, "bytes.toml"), env: {}, home })).errors[0]!;
  assert.match(notUtf8.message, /it is not UTF-8$/);
});

test("a default file that exists but is not readable is an error too", (t) => {
  const home = folder(t);
  mkdirSync(join(home, ".tokenman"));
  writeFileSync(join(home, ".tokenman", "tokenman.toml"), "");
  chmodSync(join(home, ".tokenman", "tokenman.toml"), 0);
  asNobody(home, () => {
    assert.match(failure(() => readConfig({ env: {}, home })).message, /permission is denied/);
  });
});

test("a byte order mark is no part of the first key", (t) => {
  const home = folder(t);
  writeFileSync(join(home, "bom.toml"), "\ufeffserver.proxy_port = 5\n");
  assert.equal(coreFromRaw(readConfig({ file: join(home, "bom.toml"), env: {}, home })).server.proxy_port, 5);
});

const SYNTAX: readonly (readonly [text: string, place: string, message: string])[] = [
  ["a = \n", "1:5", "expected a value, found the end of the line"],
  ["[server\nx = 1", "1:8", 'expected "]", found the end of the line'],
  ["x = 1\nkey", "2:4", 'expected "=" after the key, found the end of the file'],
  ["a = 1 b = 2", "1:7", 'expected a comment or the end of the line, found "b"'],
  ["a = [1, 2", "1:10", 'expected "]", found the end of the file'],
  ["a = { b = 1", "1:12", 'expected "," or "}", found the end of the file'],
  ['a = "abc\nb = 1', "1:9", "expected the end of the quoted text, found the end of the line"],
  ["a = 'abc", "1:9", "expected the end of the quoted text, found the end of the file"],
  ["a = 1\n\n  a = 2", "3:3", "cannot redefine existing key 'a'"],
  ["[a]\n[a]", "2:1", "cannot redefine existing key 'a'"],
  ["a = 99999999999999999999", "1:5", "the integer is outside the range that can be represented exactly"],
];

for (const [text, place, message] of SYNTAX) {
  test(`a syntax error names its place: ${JSON.stringify(text)}`, () => {
    const [error] = failure(() => parseConfig(text, "f.toml")).errors;
    assert.equal(error!.code, "TM_CONFIG_SYNTAX");
    assert.equal(`${error!.place!.line}:${error!.place!.column}`, place);
    assert.equal(error!.message, message);
  });
}

test("a syntax error shows the lines around it, without secrets and control characters", () => {
  const text = '[auth]\ntoken = "hunter2-hunter2"\nx = = 1\u001b[2J\nurl = "https://ada:pa55@host/"\n';
  const [error] = failure(() => parseConfig(text, "f.toml")).errors;
  assert.equal(
    error!.describe(),
    [
      'f.toml:3:5: TM_CONFIG_SYNTAX expected a value, found "="',
      "  1 | [auth]",
      "  2 | token = [redacted]",
      "> 3 | x = = 1\ufffd[2J",
      "    |     ^",
      '  4 | url = "https://[redacted]@host/"',
    ].join("\n"),
  );
});

test("nesting without end is refused, not followed", () => {
  assert.match(
    failure(() => parseConfig(`${"a.".repeat(20_000)}b = 1`, "f.toml")).message,
    /nest deeper than 64/,
  );
  assert.match(
    failure(() => parseConfig(`a = ${"[".repeat(400)}${"]".repeat(400)}`, "f.toml")).message,
    /nest deeper than 64/,
  );
  failure(() => parseConfig(`a = ${"[".repeat(100_000)}`, "f.toml"));
});

test("the early view of the core takes what is valid and leaves the rest for later", () => {
  const config = raw(
    'unknown = 1\n[server]\nproxy_port = "x"\ndashboard_port = 9\nno_such = 1\n[plugins]\norder = ["a", "./b.ts"]\n',
    {
      TOKENMAN_SERVER_LOG_LEVEL: "debug",
      TOKENMAN_SERVER_READ_TIMEOUT: "soon",
      TOKENMAN_NO_SUCH: "1",
    },
  );
  const { server, plugins, auth } = coreFromRaw(config);
  assert.equal(server.proxy_port, 7677);
  assert.equal(server.dashboard_port, 9);
  assert.equal(server.log_level, "debug");
  assert.equal(server.read_timeout, 10);
  assert.equal(server.data_dir, "/home/ada/.tokenman");
  assert.deepEqual(plugins.order, ["a", "./b.ts"]);
  assert.equal(plugins.dir, "/home/ada/.tokenman/plugins");
  assert.equal(auth.enabled, false);
  for (const text of ["server = 3\nplugins = [1]\nauth = 'x'\n", "[[server]]\nproxy_port = 1\n"]) {
    assert.equal(coreFromRaw(raw(text)).server.proxy_port, 7677);
  }
});
