import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, test } from "node:test";
import type { Ledger, LedgerEvent } from "@tokenman/plugin-sdk";
import { Feed, MAX_CLIENTS } from "../../plugins/api/feed.ts";

const BOOT = "00000000-0000-4000-8000-000000000000";

/** What the feed uses of a ledger: somebody to listen to. */
function talker() {
  const watchers = new Set<(event: LedgerEvent) => void>();
  const ledger = {
    watch(watcher: (event: LedgerEvent) => void) {
      watchers.add(watcher);
      return () => void watchers.delete(watcher);
    },
  } as unknown as Ledger;
  return {
    ledger,
    watchers,
    say(number: number): void {
      const row = {
        exchangeId: `exchange-${number}`,
        at: number,
        project: "default",
        session: "",
        client: "",
        method: "POST",
        path: "/v1/messages".padEnd(450, "x"),
        dialect: undefined,
        model: undefined,
        stream: false,
      };
      for (const watcher of watchers) watcher({ kind: "begin", row });
    },
  };
}

/** A server that puts its clients on a feed, and a way to be one. */
async function served(feed: Feed) {
  const responses: ServerResponse[] = [];
  const server = createServer((request, response) => {
    responses.push(response);
    const id = request.headers["last-event-id"];
    if (!feed.connect(response, typeof id === "string" ? id : undefined, 1)) response.writeHead(503).end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    responses,
    async client(lastId?: string): Promise<IncomingMessage> {
      const headers = lastId === undefined ? {} : { "last-event-id": lastId };
      const request = httpRequest({ port, host: "127.0.0.1", agent: false, headers }).end();
      const [reply] = (await once(request, "response")) as [IncomingMessage];
      reply.on("error", () => undefined);
      return reply;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** What has come once `last` has. */
async function textUntil(reply: IncomingMessage, last: string): Promise<string> {
  let text = "";
  while (!text.includes(last)) text += String(((await once(reply, "data")) as [Buffer])[0]);
  return text;
}

describe("the live feed's memory", () => {
  test("is bounded for a client that does not read, which then misses something and is told so", async () => {
    const feed = new Feed(BOOT, 50);
    const { ledger, say } = talker();
    feed.follow(ledger);
    await using server = await served(feed);
    const client = await server.client();
    let count = 0;
    // The kernel's own buffers take some megabytes before anything backs up here.
    for (let burst = 0; burst < 200; burst++) {
      for (let each = 0; each < 300; each++) say(++count);
      assert.ok(server.responses[0]!.writableLength < 80_000);
      await new Promise((resolve) => setImmediate(resolve));
    }
    let text = "";
    for await (const chunk of client) {
      text = text.slice(-100_000) + String(chunk);
      if (text.includes(`"exchange-${count}"`)) break;
    }
    const missed = text.indexOf("event: missed");
    assert.ok(missed >= 0);
    const behind = [...text.slice(missed).matchAll(/^id: \S+-(\d+)$/gm)].map(([, id]) => Number(id));
    assert.deepEqual(
      behind,
      Array.from({ length: 50 }, (_, at) => count - 48 + at),
    );
  });

  test("hears a ledger once, however many generations follow it, and lets go with the last", async () => {
    const feed = new Feed(BOOT, 50);
    const { ledger, watchers } = talker();
    const first = feed.follow(ledger);
    await using server = await served(feed);
    const client = await server.client();
    const second = feed.follow(ledger);
    assert.equal(watchers.size, 1);
    first();
    assert.equal(watchers.size, 1);
    second();
    assert.equal(watchers.size, 0);
    client.destroy();
  });

  test("hears nothing while nobody reads it, and says so to who comes back too late", async (t) => {
    const feed = new Feed(BOOT, 50);
    const { ledger, watchers, say } = talker();
    feed.follow(ledger);
    await using server = await served(feed);
    assert.equal(watchers.size, 0);
    const client = await server.client();
    say(1);
    const id = /^id: (\S+)$/m.exec(await textUntil(client, "exchange-1"))?.[1];
    assert.ok(id !== undefined);
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const closed = once(server.responses[0]!, "close");
    client.destroy();
    await closed;
    assert.equal(watchers.size, 1);
    t.mock.timers.tick(600_000);
    assert.equal(watchers.size, 0);
    t.mock.timers.reset();
    const late = await server.client(id);
    say(3);
    const text = await textUntil(late, "exchange-3");
    const missed = text.indexOf("event: missed");
    assert.ok(missed >= 0 && missed < text.indexOf("exchange-3"));
  });

  test("is not for ever more clients, and forgets those that leave", async () => {
    const feed = new Feed(BOOT, 50);
    await using server = await served(feed);
    const clients = await Promise.all(Array.from({ length: MAX_CLIENTS }, () => server.client()));
    assert.equal(feed.clients, MAX_CLIENTS);
    assert.equal((await server.client()).statusCode, 503);
    const closed = once(server.responses[0]!, "close");
    clients[0]!.destroy();
    await closed;
    assert.ok(feed.clients < MAX_CLIENTS);
    const left = server.responses.slice(1, MAX_CLIENTS).map((response) => once(response, "close"));
    for (const client of clients) client.destroy();
    await Promise.all(left);
    assert.equal(feed.clients, 0);
  });
});
