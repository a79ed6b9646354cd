import assert from "node:assert/strict";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, it } from "node:test";
import { definePlugin, headerValue, type Plugin, type ReplyInit } from "@tokenman/plugin-sdk";
import {
  type ClientReply,
  chunkBytes,
  errorReply,
  headBytes,
  recordingUpstream,
  sendRequest,
  steps,
  textEvents,
  textReply,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import {
  type Ask,
  ask,
  bodyOf,
  cacheOf,
  configFor,
  newFolder,
  outcomes,
  rig,
} from "../support/cache-world.ts";
import { startTokenman } from "../support/kernel.ts";
import { startLedgered } from "../support/ledgered.ts";

describe("cache: after a restart", () => {
  it("does not answer with what other plugins had made of it", async () => {
    const dataDir = newFolder();
    await using upstream = await recordingUpstream();
    const config = configFor(upstream, "");
    const stamp = (version: string) =>
      definePlugin({ name: "stamp", version, apiVersion: 1, setup: (ctx) => ctx.pipeline(() => undefined) });
    const outcomeWith = async (...plugins: Plugin[]): Promise<string | undefined> => {
      await using tokenman = await startTokenman({ also: ["cache"], config, dataDir, plugins });
      return cacheOf(await ask(tokenman));
    };
    assert.equal(await outcomeWith(stamp("1.0.0")), "MISS");
    assert.equal(await outcomeWith(stamp("1.0.0")), "HIT");
    assert.equal(await outcomeWith(stamp("1.1.0")), "MISS");
    assert.equal(await outcomeWith(), "MISS");
  });
});

describe("cache, fault 38: what is stored", () => {
  const twice: readonly [what: string, first: ReplyInit | undefined][] = [
    ["an error", errorReply("anthropic-messages", 529)],
    ["a redirect", { status: 302, headers: ["Location", "/x"], body: "" }],
    // Whole replies, but for their status.
    ["another success", { ...textReply("anthropic-messages"), status: 201 }],
    ["a reply from a cache that changed it", { ...textReply("anthropic-messages"), status: 203 }],
    ["a part of a reply", { ...textReply("anthropic-messages"), status: 206 }],
    [
      "an error in a 200",
      { status: 200, headers: ["Content-Type", "application/json"], body: '{"error":{}}' },
    ],
    [
      "nothing at all",
      {
        status: 200,
        headers: ["Content-Type", "application/json"],
        body: '{"content":[],"usage":{"input_tokens":3,"output_tokens":0}}',
      },
    ],
    [
      "what its sender says is not to be stored",
      {
        ...textReply("anthropic-messages"),
        headers: ["Content-Type", "application/json", "Cache-Control", "private, no-store"],
      },
    ],
    [
      "what a second header says is not to be stored",
      {
        ...textReply("anthropic-messages"),
        headers: [
          "Content-Type",
          "application/json",
          "Cache-Control",
          "no-cache",
          "cache-control",
          "No-Store",
        ],
      },
    ],
    [
      "what varies by something that requests are not told apart by",
      {
        ...textReply("anthropic-messages"),
        headers: [
          "Content-Type",
          "application/json",
          "Vary",
          "Origin",
          "Vary",
          "accept-encoding, User-Agent",
        ],
      },
    ],
    [
      "what varies by anything",
      { ...textReply("anthropic-messages"), headers: ["Content-Type", "application/json", "Vary", "*"] },
    ],
  ];
  for (const [what, first] of twice) {
    it(`not ${what}`, async () => {
      await using rigged = await rig();
      rigged.upstream.next(wholeReply(first!));
      assert.deepEqual(await outcomes(rigged, {}, {}, {}), ["MISS", "MISS", "HIT"]);
    });
  }

  const stream = { body: bodyOf("anthropic-messages", { stream: true }) };
  const SSE = ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"];
  const events = textEvents("anthropic-messages");
  it("not a stream that broke, nor one without its end, nor one with an error in it", async () => {
    await using rigged = await rig();
    const error = Buffer.from(
      'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"m"}}\n\n',
    );
    rigged.upstream.next(
      steps(headBytes(200, SSE), chunkBytes(events[0]!), (call) => call.reset()),
      steps(headBytes(200, SSE), chunkBytes(Buffer.concat(events.slice(0, -1))), chunkBytes("")),
      steps(headBytes(200, SSE), chunkBytes(Buffer.concat([...events.slice(0, -1), error])), chunkBytes("")),
    );
    const first = await rigged.ask(stream);
    assert.equal(first.complete, false, "the break is seen");
    assert.deepEqual(first.body, events[0]);
    assert.deepEqual(await outcomes(rigged, stream, stream, stream, stream), ["MISS", "MISS", "MISS", "HIT"]);
  });

  it("not what is larger than an entry may be, and the client has all of it", async () => {
    await using rigged = await rig("[cache]\nmax_entry_bytes = 10000");
    const text = "x".repeat(20_000);
    rigged.upstream.next(
      wholeReply(textReply("anthropic-messages", text)),
      wholeReply(textReply("anthropic-messages", text)),
    );
    const first = await rigged.ask();
    assert.ok(first.complete && first.body.includes(text));
    assert.deepEqual(await outcomes(rigged, {}, {}, {}), ["MISS", "MISS", "HIT"]);
  });

  it("not what the copy of it was cut of by server.max_response_size", async () => {
    await using rigged = await rig("[server]\nmax_response_size = 500");
    rigged.upstream.next(
      steps(
        headBytes(200, SSE),
        chunkBytes(Buffer.concat([Buffer.from(`: ${"x".repeat(600)}\n\n`), ...events])),
        chunkBytes(""),
      ),
    );
    assert.deepEqual(await outcomes(rigged, stream), ["MISS"]);
    rigged.upstream.script(wholeReply(errorReply("anthropic-messages", 500)));
    assert.deepEqual(await outcomes(rigged, stream), ["MISS"]);
  });

  it("not what a client left in the middle of, alone", async () => {
    await using rigged = await rig();
    const leaving = new AbortController();
    rigged.upstream.next(async (call) => {
      await call.received;
      await call.write(headBytes(200, SSE));
      await call.write(chunkBytes(events[0]!));
      leaving.abort();
      await call.closed;
    });
    await assert.rejects(
      sendRequest(`${rigged.tokenman.proxy}/v1/messages`, {
        headers: ["Content-Type", "application/json", "x-api-key", "k1"],
        body: stream.body,
        signal: leaving.signal,
      }).then((reply) => {
        if (!reply.complete) throw new Error("left");
      }),
    );
    assert.deepEqual(await outcomes(rigged, stream, stream), ["MISS", "HIT"]);
  });
});

describe("cache: what is stored all the same", () => {
  it("what varies by what requests are told apart by, whatever is to be done with it later", async () => {
    await using rigged = await rig();
    rigged.upstream.next(
      wholeReply({
        ...textReply("anthropic-messages"),
        headers: [
          ...["Content-Type", "application/json", "Cache-Control", "no-cache, must-revalidate, max-age=0"],
          ...["Vary", "Origin, Accept-Encoding,, x-api-key", "Vary", "anthropic-version"],
        ],
      }),
    );
    assert.deepEqual(await outcomes(rigged, {}, {}), ["MISS", "HIT"]);
  });
});

describe("cache: on disk", () => {
  it("outlives a restart, with its headers and bytes, in a file for nobody else", async () => {
    const dataDir = newFolder();
    let first: ClientReply;
    await using upstream = await recordingUpstream();
    {
      await using tokenman = await startTokenman({
        also: ["cache"],
        config: configFor(upstream, ""),
        dataDir,
      });
      first = await ask(tokenman);
      assert.equal(cacheOf(first), "MISS");
    }
    const file = join(dataDir, "cache.db");
    assert.equal(statSync(file).mode & 0o777, 0o600);
    {
      await using tokenman = await startTokenman({
        also: ["cache"],
        config: configFor(upstream, ""),
        dataDir,
      });
      const again = await ask(tokenman);
      assert.equal(cacheOf(again), "HIT", "the very first request after the start");
      assert.deepEqual(again.body, first.body);
      assert.equal(headerValue(again.headers, "content-type"), headerValue(first.headers, "content-type"));
      const purged = await fetch(`${tokenman.dashboard}/api/cache/purge`, { method: "POST", body: "{}" });
      assert.deepEqual(await purged.json(), { purged: 1 });
      assert.equal(readFileSync(file).includes(first.body), false, "overwritten");
      assert.equal(cacheOf(await ask(tokenman)), "MISS");
    }
  });

  it("a file that is damaged, a newer version's or another program's is set aside, and a new one begun", async () => {
    await using upstream = await recordingUpstream();
    const spoil: readonly ((file: string) => void)[] = [
      (file) => writeFileSync(file, "no database at all"),
      (file) =>
        writeFileSync(file, Buffer.concat([Buffer.from("SQLite format 3\0"), Buffer.alloc(4_000, 7)])),
      (file) => {
        const db = new DatabaseSync(file);
        db.exec("PRAGMA application_id = 1953196899; PRAGMA user_version = 99");
        db.close();
      },
      (file) => {
        const db = new DatabaseSync(file);
        db.exec("CREATE TABLE mine (a); PRAGMA user_version = 3");
        db.close();
      },
    ];
    for (const [index, make] of spoil.entries()) {
      const dataDir = newFolder();
      const file = join(dataDir, "cache.db");
      make(file);
      const before = readFileSync(file);
      for (const expected of ["MISS", "HIT"]) {
        await using tokenman = await startTokenman({
          also: ["cache"],
          config: configFor(upstream, ""),
          dataDir,
        });
        assert.equal(cacheOf(await ask(tokenman)), expected, `case ${index}`);
        if (expected === "MISS")
          assert.ok(
            tokenman.log.some(({ message }) => /set aside/.test(message ?? "")),
            `case ${index}: told`,
          );
      }
      assert.ok(existsSync(`${file}.unusable`));
      assert.deepEqual(readFileSync(`${file}.unusable`).subarray(0, 16), before.subarray(0, 16));
    }
  });

  it("a disk that takes nothing leaves the cache in memory, and requests as they are", async () => {
    const dataDir = newFolder();
    await using upstream = await recordingUpstream();
    // A folder in the place of the file: nothing can be opened there, not even by root.
    const { mkdirSync } = await import("node:fs");
    mkdirSync(join(dataDir, "cache.db", "sub"), { recursive: true });
    await using tokenman = await startTokenman({ also: ["cache"], config: configFor(upstream, ""), dataDir });
    assert.equal(cacheOf(await ask(tokenman)), "MISS");
    assert.equal(cacheOf(await ask(tokenman)), "HIT");
    const stats = (await (await fetch(`${tokenman.dashboard}/api/cache`)).json()) as {
      disk: { failing: string | null };
    };
    assert.equal(typeof stats.disk.failing, "string");
    const purged = await fetch(`${tokenman.dashboard}/api/cache`, { method: "DELETE" });
    assert.deepEqual(await purged.json(), { purged: 1 }, "there is nothing of it on disk");
  });
});

describe("cache: purge and figures", () => {
  it("drops a project's answers or all; what is not understood drops none", async () => {
    await using rigged = await rig();
    const web = { headers: ["X-Tokenman-Project", "web"] };
    await outcomes(rigged, {}, web);
    const api = `${rigged.tokenman.dashboard}/api/cache`;
    const post = (body: string) => fetch(`${api}/purge`, { method: "POST", body });
    for (const body of ["null", "[]", '{"projet":"web"}', '{"project":7}', "{", '{"project":"web","x":1}'])
      assert.equal((await post(body)).status, 400, body);
    assert.equal(
      (await fetch(`${api}/purge`, { method: "POST", headers: { Origin: "https://evil.example" } })).status,
      403,
    );
    assert.deepEqual(await (await post('{"project":"web"}')).json(), { purged: 1 });
    assert.deepEqual(await outcomes(rigged, {}, web), ["HIT", "MISS"]);
    assert.deepEqual(await (await fetch(`${api}?project=nobody`, { method: "DELETE" })).json(), {
      purged: 0,
    });
    assert.deepEqual(await (await fetch(api, { method: "DELETE" })).json(), { purged: 2 });
    assert.deepEqual(await outcomes(rigged, {}), ["MISS"]);
  });

  it("keeps what is under way from being stored, and from being shared with whoever comes later", async () => {
    await using rigged = await rig();
    const api = `${rigged.tokenman.dashboard}/api/cache`;
    for (const [project, meanwhile, after] of [
      ["", undefined, "MISS"],
      ["?project=web", undefined, "MISS"],
      ["?project=web", "MISS", "HIT"],
      ["?project=shop", undefined, "HIT"],
    ] as const) {
      const body = bodyOf("anthropic-messages", { stream: true, metadata: { user_id: project + meanwhile } });
      const asked: Ask = { body, headers: ["X-Tokenman-Project", "web"] };
      const begun = Promise.withResolvers<void>();
      const purged = Promise.withResolvers<void>();
      rigged.upstream.next(async (call) => {
        await call.received;
        await call.write(
          headBytes(200, ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"]),
        );
        begun.resolve();
        await purged.promise;
        await call.write(chunkBytes(Buffer.concat(textEvents("anthropic-messages"))));
        await call.write(chunkBytes(""));
      });
      const first = rigged.ask(asked);
      await begun.promise;
      assert.equal((await fetch(api + project, { method: "DELETE" })).status, 200);
      if (meanwhile !== undefined) assert.equal(cacheOf(await rigged.ask(asked)), meanwhile);
      purged.resolve();
      assert.equal((await first).complete, true);
      assert.equal(cacheOf(await rigged.ask(asked)), after, project);
    }
  });

  it("a hit is in the ledger as one, with what it saved, and makes no attempt", async () => {
    await using upstream = await recordingUpstream();
    await using tokenman = await startLedgered({ also: ["cache"], config: configFor(upstream, "") });
    const body = bodyOf("anthropic-messages", { model: "claude-sonnet-4-5" });
    upstream.script(
      wholeReply({
        status: 200,
        headers: ["Content-Type", "application/json"],
        body: JSON.stringify({
          model: "claude-sonnet-4-5",
          content: [{ type: "text", text: "x" }],
          usage: { input_tokens: 100, output_tokens: 10, cache_read_input_tokens: 50 },
        }),
      }),
    );
    await ask(tokenman, { body });
    const [first] = await tokenman.ended();
    await ask(tokenman, { body });
    const [second] = await tokenman.ended();
    assert.equal(first!.cache, "MISS");
    assert.equal(second!.cache, "HIT");
    assert.deepEqual(second!.attempts, []);
    const paid = first!.attempts[0]!.cost!.total;
    assert.ok(paid > 0);
    assert.deepEqual(
      second!.savings.map(({ kind, plugin, tokens, nanoUsd }) => ({ kind, plugin, tokens, nanoUsd })),
      [{ kind: "response-cache", plugin: "cache", tokens: 160, nanoUsd: paid }],
    );
    const metrics = await (await fetch(`${tokenman.dashboard}/metrics`)).text();
    assert.match(metrics, /^tokenman_cache_hits_total 1$/m);
    assert.match(metrics, /^tokenman_cache_misses_total 1$/m);
    assert.match(metrics, /^tokenman_cache_entries\{tier="memory"\} 1$/m);
  });
});
