import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import zlib from "node:zlib";
import { definePlugin } from "@tokenman/plugin-sdk";
import { wholeReply } from "@tokenman/plugin-sdk/testkit";
import { bench, MESSAGE, STOP, summary } from "../support/faulty.ts";
import { startTokenman } from "../support/kernel.ts";
import { rawClient, requestBytes, statusOf } from "../support/raw-client.ts";

const limits = { timeout: 60_000 };
const ROOT = join(import.meta.dirname, "../..");
/** Code that reads what clients and providers send. What reads the config file alone is the owner's own. */
const FOLDERS = ["kernel", "plugin-sdk/src", "plugins"];
const CONFIG_ONLY =
  /^(?:kernel\/(?:config|load|generation)\/|plugins\/[^/]+\/schema\.ts$|plugin-sdk\/src\/units\.ts$)/;

/** A literal, where the grammar allows one: not after a value, where the slash would divide. */
const LITERAL =
  /(?<=(?:[=(,:;!&|?{}[]|return)\s*)\/(?![*/])((?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+)\/([dgimsuyv]*)/g;

function patterns(): { readonly where: string; readonly pattern: RegExp }[] {
  return FOLDERS.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
      .map((name) => join(folder, name))
      .filter((file) => file.endsWith(".ts") && !file.includes("node_modules") && !CONFIG_ONLY.test(file)),
  ).flatMap((file) => {
    const source = readFileSync(join(ROOT, file), "utf8").replace(/^\s*(?:\/\/|\*|\/\*).*$/gm, "");
    return [...source.matchAll(LITERAL)].map(([, body, flags]) => ({
      where: `${file}: /${body}/${flags}`,
      pattern: new RegExp(body!, flags),
    }));
  });
}

const UNITS = [
  " ",
  "\t",
  "a",
  "A",
  "0",
  "-",
  ".",
  "/",
  '"',
  "\\",
  "\n",
  "=",
  ",",
  ":",
  "_",
  "%2e",
  "a.",
  "a-",
  " a",
  "/a",
  "//",
  "a:",
  "{{",
  "<a",
  "x\n",
];

test("fault 39: every pattern that reads what strangers send takes linear time", limits, () => {
  const found = patterns();
  assert.ok(found.length > 40, `only ${found.length} patterns were found`);
  const slow = found.flatMap(({ where, pattern }) => {
    // What the pattern asks for at its beginning, so that the attack gets past it.
    const lead = /^\^?((?:[\w\s-]|\\[/.-])*)/.exec(pattern.source)?.[1]?.replaceAll("\\", "") ?? "";
    return UNITS.flatMap((unit) => {
      for (const begin of new Set(["", lead, lead.slice(0, -1)])) {
        const text = `${begin}${unit.repeat(Math.ceil(50_000 / unit.length))}\0`;
        const began = performance.now();
        for (let round = 0; round < 2; round++) {
          pattern.lastIndex = 0;
          pattern.test(text);
        }
        // Quadratic time would be some 10^9 steps: seconds. Linear time is far below a millisecond.
        if (performance.now() - began > 500)
          return [`${where} over ${JSON.stringify(begin + unit)} again and again`];
      }
      return [];
    });
  });
  assert.deepEqual(slow, []);
});

test(
  "fault 39: headers and paths made to be slow to read are answered as fast as others",
  limits,
  async () => {
    await using b = await bench();
    b.upstream.script(wholeReply({ status: 200, body: '{"ok":1}' }));
    const long = 30_000;
    const lines = [
      `Authorization: bearer${" ".repeat(long)}x`,
      `Authorization: bearer ${"a.".repeat(long / 2)}`,
      `Origin: http://localhost${":".repeat(long)}`,
      `Content-Type: ${"a/".repeat(long / 2)}`,
      `Connection: ${",".repeat(long)}`,
      `Content-Encoding: ${"gzip,".repeat(long / 5)}`,
      `anthropic-beta: ${" ,oauth".repeat(long / 7)}`,
      `User-Agent: ${"AsyncAzure".repeat(long / 10)}`,
      `X-Tokenman-NoCompress: ${" ".repeat(long)}x`,
      `X-Claude-Code-Session-Id: ${"s".repeat(long)}`,
    ];
    const targets = [
      `/${"a/".repeat(long / 2)}`,
      `/v1/messages?${"a=b&".repeat(long / 4)}`,
      `/p/x${"/".repeat(long)}`,
      `/${"%2e".repeat(long / 3)}`,
      `/${"..".repeat(long / 2)}`,
    ];
    const requests = [
      ...lines.map((line) => ({ line, target: "/v1/messages" })),
      ...targets.map((target) => ({ line: "X-A: b", target })),
    ];
    for (const { line, target } of requests) {
      const client = await rawClient(b.tokenman.proxy);
      await client.send(requestBytes({ target, headers: [line, "Connection: close"], body: MESSAGE }));
      await client.ended;
      assert.ok(statusOf(client.text) > 0, line);
    }
    // The loop of this very process served them: had one blocked it, the test would have timed out.
    assert.equal(b.outcomes.all.length, requests.length - 1, "all but that of a foreign origin");
  },
);

test(
  "fault 39: a reply that is a decompression bomb goes through raw; the copy stops at its bound",
  limits,
  async () => {
    let seen = 0;
    let truncated: boolean | undefined;
    const watcher = definePlugin({
      name: "watcher",
      version: "1.0.0",
      apiVersion: 1,
      setup: (ctx) =>
        ctx.pipeline((_, hooks) =>
          hooks.response.tap((reply) =>
            reply.observe({
              data: (chunk) => {
                seen += chunk.length;
              },
              event() {},
              end: (_end, cut) => {
                truncated = cut;
              },
            }),
          ),
        ),
    });
    await using b = await bench({ server: "max_response_size = 1000000", plugins: [watcher] });
    const plain = Buffer.alloc(300_000_000);
    const before = process.memoryUsage().rss;
    const bombs: [string, string, Buffer][] = [
      ["text/event-stream", "gzip", zlib.gzipSync(plain, { level: 1 })],
      [
        "application/json",
        "br",
        zlib.brotliCompressSync(plain, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 1 } }),
      ],
      ["application/json", "zstd", zlib.zstdCompressSync(plain)],
    ];
    for (const [type, coding, body] of bombs) {
      seen = 0;
      truncated = undefined;
      b.upstream.next(
        wholeReply({ status: 200, headers: ["Content-Type", type, "Content-Encoding", coding], body }),
      );
      const client = await b.ask({ headers: ["Connection: close"] });
      await client.ended;
      assert.ok(client.bytes.subarray(client.text.indexOf("\r\n\r\n") + 4).equals(body), coding);
      await b.outcomes.settled(b.outcomes.begun);
      assert.ok(seen <= 1_000_000, `${coding}: ${seen} bytes were decoded`);
      assert.equal(truncated, true, coding);
    }
    const grown = process.memoryUsage().rss - before;
    assert.ok(grown < 150_000_000, `${grown} bytes of memory`);
  },
);

test("fault 39: what a client sends cannot begin a line of its own in the logs", limits, async (t) => {
  const written: string[] = [];
  const folder = mkdtempSync(join(tmpdir(), "tokenman-log-"));
  const file = join(folder, "access.log");
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  {
    await using tokenman = await startTokenman({
      also: ["access-log"],
      config: `[access_log]\nfile = ${JSON.stringify(file)}\n`,
    });
    const evil = '\\r\\n{\\"level\\":\\"error\\",\\"msg\\":\\"forged\\"}\\u2028\\u0000\\u001b[31m';
    const client = await rawClient(tokenman.proxy);
    await client.send(
      requestBytes({
        body: `{"model":"mock-${evil}","max_tokens":1,"messages":[{"role":"user","content":"${evil}"}]}`,
        target: "/v1/messages?x=%0d%0aforged",
        headers: ["Connection: close", "X-Tokenman-Project: p"],
      }),
    );
    await client.ended;
    for (const { message, facts } of tokenman.log) written.push(`${message} ${JSON.stringify(facts)}`);
  }
  const lines = readFileSync(file, "utf8").trimEnd().split("\n");
  assert.equal(lines.length, 1, "one exchange, one line");
  assert.equal((JSON.parse(lines[0]!) as { log: string }).log, "access");
  assert.ok(!Array.from(lines[0]!).some((character) => character < " " || character === "\x7f"));
  for (const text of written) assert.doesNotMatch(text, /\n\{"level":"error"/);
});

test("fault 39: an event of a stream is bounded in the copy, not for the client", limits, async () => {
  await using b = await bench();
  const huge = Buffer.concat([
    Buffer.from("data: "),
    Buffer.alloc(40_000_000, "x"),
    Buffer.from(`\n\n${STOP}`),
  ]);
  b.upstream.next(wholeReply({ status: 200, headers: ["Content-Type", "text/event-stream"], body: huge }));
  const client = await b.ask({ headers: ["Connection: close"] });
  await client.ended;
  assert.ok(client.bytes.subarray(client.bytes.indexOf("\r\n\r\n") + 4).equals(huge));
  assert.equal(summary(await b.outcomes.settled(1)), "answered 200");
});
