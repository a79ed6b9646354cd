import assert from "node:assert/strict";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { describe, test } from "node:test";
import { SseSplitter, z } from "@tokenman/plugin-sdk";
import { type Ledgered, startLedgered } from "../support/ledgered.ts";

// $1 and $10 a million tokens: 1,000 and 10,000 nano-dollars each.
const PRICES = '[pricing."mock"]\ninput = 1\noutput = 10\n';

// biome-ignore lint/suspicious/noExplicitAny: answers are looked into deeply, and their shape is a test of its own.
type Json = { readonly [key: string]: any };

async function ask(tokenman: Ledgered, body: object, headers: Record<string, string> = {}): Promise<void> {
  const reply = await fetch(`${tokenman.proxy}/v1/messages`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ max_tokens: 50, messages: [{ role: "user", content: "hello" }], ...body }),
  });
  await reply.arrayBuffer();
}

async function get(tokenman: { readonly dashboard: string }, path: string, status = 200): Promise<Json> {
  const reply = await fetch(tokenman.dashboard + path);
  const json = (await reply.json()) as Json;
  assert.equal(reply.status, status, `${path}: ${JSON.stringify(json)}`);
  return json;
}

/** Three requests: one priced, one of another project and unpriced, one that fails. */
async function filled(config = ""): Promise<Ledgered> {
  const tokenman = await startLedgered({ config: `${config}\n${PRICES}` });
  await ask(tokenman, { model: "mock" });
  await ask(tokenman, { model: "mock-unheard-of", stream: true }, { "x-tokenman-project": "web" });
  await ask(tokenman, { model: "mock-fail-400" });
  await tokenman.ended(3);
  return tokenman;
}

describe("the API's figures", () => {
  test("are the ledger's sums, with what has no price apart", async () => {
    await using tokenman = await filled();
    const stats = await get(tokenman, "/api/stats");
    assert.equal(stats["requests"], 3);
    assert.equal(stats["errors"], 1);
    assert.equal(stats["streams"], 1);
    assert.equal(stats["cost"].unpriced, 1);
    const sums = await tokenman.ledger.totals({ from: stats["from"], to: stats["to"] });
    assert.ok(sums.cost > 0);
    assert.equal(stats["cost"].usd, sums.cost / 1e9);
    assert.equal(stats["tokens"].output, sums.outputTokens);
  });

  test("say null, not 0, where nothing has a price", async () => {
    await using tokenman = await filled();
    const stats = await get(tokenman, "/api/stats?project=web");
    assert.equal(stats["requests"], 1);
    assert.deepEqual(
      { usd: stats["cost"].usd, unpriced: stats["cost"].unpriced },
      { usd: null, unpriced: 1 },
    );
  });

  test("come by step, project, model and provider", async () => {
    await using tokenman = await filled();
    for (const query of [
      "",
      "?range=1h",
      "?range=7d&step=1h",
      "?since=2h&step=5m",
      "?range=30d&step=1d",
      "?range=all",
    ]) {
      const { points } = await get(tokenman, `/api/stats/history${query}`);
      const requests = points.map((point: Json) => point["requests"]);
      assert.equal(
        requests.reduce((sum: number, each: number) => sum + each, 0),
        3,
        query,
      );
    }
    const names = (groups: Json[]) =>
      Object.fromEntries(groups.map(({ name, requests }) => [name, requests]));
    const projects = await get(tokenman, "/api/projects");
    assert.deepEqual(names(projects["projects"]), { default: 2, web: 1 });
    assert.deepEqual(names((await get(tokenman, "/api/models"))["models"]), {
      mock: 1,
      "mock-fail-400": 1,
      "mock-unheard-of": 1,
    });
    const providers = await get(tokenman, "/api/providers");
    assert.deepEqual(names(providers["providers"]), { mock: 3 });
    assert.ok(providers["configured"].some(({ name }: Json) => name === "anthropic"));
  });
});

describe("the API's requests", () => {
  test("come newest first, page by page, and each with its attempts", async () => {
    await using tokenman = await filled();
    const models: string[] = [];
    let cursor = "";
    do {
      const { rows, next } = await get(tokenman, `/api/requests?limit=1${cursor}`);
      models.push(...rows.map(({ model }: Json) => model));
      cursor = next === null ? "" : `&cursor=${next}`;
    } while (cursor !== "");
    assert.deepEqual(models, ["mock-fail-400", "mock-unheard-of", "mock"]);
    const { rows } = await get(tokenman, "/api/requests?model=mock");
    const one = await get(tokenman, `/api/requests/${rows[0].id}`);
    assert.equal(one["tries"].length, 1);
    assert.equal(one["tries"][0].result.status, 200);
    assert.equal(one["tries"][0].costUsd.total, rows[0].costUsd);
    assert.equal(one["bodies"], null);
    assert.ok(one["timings"].some(({ plugin }: Json) => plugin === "recorder"));
  });

  test("can be picked by each filter", async () => {
    await using tokenman = await filled();
    const count = async (query: string): Promise<number> =>
      (await get(tokenman, `/api/requests?${query}`))["rows"].length;
    for (const [query, expected] of [
      ["project=web", 1],
      ["project=nobody", 0],
      ["provider=mock", 3],
      ["status=400", 1],
      ["status=4xx", 1],
      ["status=2xx", 2],
      ["outcome=answered", 3],
      ["outcome=refused", 0],
      ["text=invalid", 1],
      ["since=1h", 3],
      ["until=1h", 0],
      [`project=${encodeURIComponent("' OR 1=1 --")}`, 0],
      [`text=${encodeURIComponent('" OR invalid NEAR(')}`, 0],
    ] as const)
      assert.equal(await count(query), expected, query);
  });

  test("have their bodies where these are stored, and no key in them", async () => {
    await using tokenman = await startLedgered({ config: `[server]\nstore_body = true\n${PRICES}` });
    await ask(tokenman, { model: "mock" }, { "x-api-key": "sk-ant-api03-canary0canary0canary0" });
    await tokenman.ended();
    const { rows } = await get(tokenman, "/api/requests");
    const { bodies } = await get(tokenman, `/api/requests/${rows[0].id}`);
    assert.equal(bodies.request.encoding, "utf8");
    assert.equal(JSON.parse(bodies.request.content).model, "mock");
    assert.doesNotMatch(JSON.stringify(bodies), /canary/);
  });
});

test("a question that makes no sense is answered with 400, and says what does", async () => {
  await using tokenman = await startLedgered();
  for (const [path, says] of [
    ["/api/stats?range=yesterday", /range/],
    ["/api/stats?range=10", /range: expected a duration .* or "all"/],
    ["/api/stats?range=0s", /range: expected a duration/],
    ["/api/stats?since=-5", /since: expected a date/],
    ["/api/stats?since=Nov", /since: expected a date/],
    ["/api/stats?range=-1d", /range/],
    ["/api/stats?range=1d&range=2d", /range: given 2 times/],
    ["/api/stats?rang=1d", /did you mean range\?/],
    ["/api/stats?since=2027-01-01&until=2026-01-01", /not before/],
    ["/api/stats?since=99999-01-01", /since/],
    ["/api/stats?range=1d&since=1d", /give one/],
    ["/api/stats/history?range=30d&step=1s", /step/],
    ["/api/stats/history?range=all&step=1h", /steps/],
    ["/api/requests?status=abc", /status/],
    ["/api/requests?status=999", /status/],
    ["/api/requests?outcome=lost", /outcome/],
    ["/api/requests?limit=0", /limit/],
    ["/api/requests?limit=9999", /limit/],
    ["/api/requests?limit=1e3", /limit/],
    ["/api/requests?cursor=%00%27", /cursor/],
    ["/api/requests?text=%00", /text/],
    [`/api/requests?project=${"x".repeat(501)}`, /project: longer/],
    ["/api/config?secrets=1", /takes none/],
    ["/api/events?since=1", /since/],
  ] as const) {
    const { error } = await get(tokenman, path, 400);
    assert.match(error.code, /^TM_(BAD_QUERY|LEDGER_QUERY)$/, path);
    assert.match(error.message, says, path);
  }
  assert.equal((await get(tokenman, "/api/requests/nothing", 404))["error"].code, "TM_NOT_FOUND");
  assert.equal((await get(tokenman, "/api/requests/%27%3B--", 404))["error"].code, "TM_NOT_FOUND");
});

test("the port's front page tells what is served, to people and to curl, and can do nothing", async () => {
  await using tokenman = await startLedgered();
  const plain = await fetch(tokenman.dashboard);
  assert.equal(plain.headers.get("content-type"), "text/plain; charset=utf-8");
  assert.match(
    await plain.text(),
    /dashboard is planned[\s\S]*GET +\/api\/stats +Requests, tokens[\s\S]*GET +\/metrics/,
  );
  const page = await fetch(tokenman.dashboard, { headers: { accept: "text/html,*/*" } });
  assert.equal(page.headers.get("content-type"), "text/html; charset=utf-8");
  assert.match(page.headers.get("content-security-policy")!, /^default-src 'none';.*frame-ancestors 'none'$/);
  const html = await page.text();
  assert.match(html, /<a href="\/api\/stats">/);
  assert.match(
    html,
    /<a href="\/api\/security\/budget">.*<td>The budget&#39;s windows/,
    "of what is off, too",
  );
  assert.doesNotMatch(html, /\*/);
  assert.doesNotMatch(html, /<(script|style|img|link|form)|href="\/api\/requests\/:id"/);
  for (const [, path] of html.matchAll(/href="([^"]+)"/g)) {
    const reply = await fetch(tokenman.dashboard + path, { method: "HEAD" });
    assert.ok([200, 400].includes(reply.status), `${path} is served: ${reply.status}`);
  }
});

test("without a ledger, what needs one says so, and the rest works", async () => {
  const tokenman = await import("../support/kernel.ts");
  await using bare = await tokenman.startTokenman({ pluginsFlag: "api" });
  assert.equal((await get(bare, "/api/stats", 503))["error"].code, "TM_LEDGER_UNAVAILABLE");
  assert.equal((await get(bare, "/api/config"))["generation"], 1);
});

test("the config is shown without its secrets", async () => {
  await using tokenman = await startLedgered({
    config: `[auth]\ntoken = "canary-token"\n[providers.own]\nformat = "openai"\napi_base = "http://127.0.0.1:9"\nkey_ref = "env:X"\n`,
  });
  const text = JSON.stringify(await get(tokenman, "/api/config"));
  assert.doesNotMatch(text, /canary/);
  assert.match(text, /"retention_days":30/);
});

test("the token is wanted where there is one, and foreign pages and hosts are refused", async () => {
  await using tokenman = await startLedgered({ config: '[auth]\nenabled = true\ntoken = "canary-token"\n' });
  const { port } = new URL(tokenman.dashboard);
  const status = (path: string, headers: Record<string, string>): Promise<number> =>
    new Promise((resolve, reject) => {
      const request = httpRequest({ port, host: "127.0.0.1", path, headers, agent: false }, (reply) => {
        resolve(reply.statusCode ?? 0);
        reply.destroy();
      });
      request.on("error", reject).end();
    });
  const token = { authorization: "Bearer canary-token" };
  for (const path of ["/api/stats", "/api/requests", "/api/config", "/api/events", "/api/openapi.json"]) {
    assert.equal(await status(path, {}), 401, path);
    assert.equal(await status(path, { authorization: "Bearer canary-tokem" }), 401, path);
    assert.equal(await status(path, token), 200, path);
    assert.equal(await status(path, { ...token, origin: "https://evil.example" }), 403, path);
    assert.equal(await status(path, { ...token, host: "evil.example" }), 403, path);
  }
});

interface Feed extends AsyncDisposable {
  readonly reply: IncomingMessage;
  /** The next event that has a type of its own. */
  next(): Promise<{ readonly event: string; readonly id: string | undefined; readonly data: Json } | "end">;
}

async function feed(tokenman: Ledgered, headers: Record<string, string> = {}): Promise<Feed> {
  const reply = await new Promise<IncomingMessage>((resolve, reject) => {
    httpRequest(`${tokenman.dashboard}/api/events`, { headers, agent: false }, resolve)
      .on("error", reject)
      .end();
  });
  assert.equal(reply.statusCode, 200);
  assert.equal(reply.headers["content-type"], "text/event-stream; charset=utf-8");
  const splitter = new SseSplitter();
  const chunks = reply[Symbol.asyncIterator]();
  const waiting: { event: string; id: string | undefined; data: Json }[] = [];
  return {
    reply,
    async next() {
      for (;;) {
        const found = waiting.shift();
        if (found !== undefined) return found;
        const { value, done } = await chunks.next();
        if (done === true) return "end";
        splitter.push(value as Buffer, (event) => {
          if (event.hasData) waiting.push({ event: event.event, id: event.id, data: event.json() as Json });
        });
      }
    },
    async [Symbol.asyncDispose]() {
      reply.destroy();
    },
  };
}

describe("the live feed", () => {
  test("tells of each request as it begins and ends, and again to who comes back", async () => {
    await using tokenman = await startLedgered({ config: PRICES });
    await using live = await feed(tokenman);
    await ask(tokenman, { model: "mock" });
    const begin = await live.next();
    const end = await live.next();
    assert.ok(begin !== "end" && end !== "end");
    assert.equal(begin.event, "begin");
    assert.equal(end.event, "end");
    assert.equal(typeof begin.data["id"], "string");
    assert.equal(begin.data["id"], end.data["id"]);
    assert.equal(end.data["outcome"], "answered");
    for (const name of ["project", "method", "path", "model"]) assert.equal(end.data[name], begin.data[name]);
    const [row] = await tokenman.ended();
    assert.equal(end.data["costUsd"], row!.attempts[0]!.cost!.total / 1e9);
    await using again = await feed(tokenman, { "last-event-id": begin.id! });
    assert.deepEqual(await again.next(), end);
  });

  test("says that something was missed to who was away too long, or knew another process", async () => {
    await using tokenman = await startLedgered({ config: `[api]\nevent_buffer = 2\n${PRICES}` });
    await using live = await feed(tokenman);
    await ask(tokenman, { model: "mock" });
    const first = await live.next();
    assert.ok(first !== "end");
    await ask(tokenman, { model: "mock" });
    await tokenman.ended(2);
    for (const id of [first.id!, "0123456789ab-1", "nonsense", "9".repeat(400)]) {
      await using late = await feed(tokenman, { "last-event-id": id });
      const kinds = [await late.next(), await late.next(), await late.next()];
      assert.deepEqual(
        kinds.map((each) => each !== "end" && each.event),
        ["missed", "begin", "end"],
        id,
      );
    }
  });

  test("ends with its generation, and goes on in the next without a gap", async () => {
    await using tokenman = await startLedgered({ config: PRICES });
    await using live = await feed(tokenman);
    await ask(tokenman, { model: "mock" });
    await live.next();
    const last = await live.next();
    assert.ok(last !== "end");
    assert.equal((await tokenman.reload("a test")).ok, true);
    assert.equal(await live.next(), "end");
    await ask(tokenman, { model: "mock" });
    await using next = await feed(tokenman, { "last-event-id": last.id! });
    const kinds = [await next.next(), await next.next()];
    assert.deepEqual(
      kinds.map((each) => each !== "end" && each.event),
      ["begin", "end"],
    );
  });

  test("shows signs of life where nothing happens", async () => {
    await using tokenman = await startLedgered({ config: "[api]\nheartbeat_seconds = 0.05\n" });
    await using live = await feed(tokenman);
    let text = "";
    for await (const chunk of live.reply) {
      text += chunk;
      if (text.includes(": beat\n\n")) break;
    }
    assert.match(text, /: beat\n\n$/, "it did not end without one");
  });
});

/** The schema of a path's answer, as the document has it. */
function schemaAt(document: Json, method: string, path: string, status: number): z.ZodType {
  const { content } = document["paths"][path][method].responses[status];
  const { schema } = content["application/json"];
  const { $ref } = schema as { $ref?: string };
  const found = $ref === undefined ? schema : document["components"].schemas[$ref.split("/").at(-1)!];
  return z.fromJSONSchema(found);
}

describe("the OpenAPI document", () => {
  test("holds what the paths really answer", async () => {
    await using tokenman = await filled();
    const document = await get(tokenman, "/api/openapi.json");
    assert.equal(document["openapi"], "3.1.0");
    const { rows } = await get(tokenman, "/api/requests");
    const asked = new Set<string>();
    for (const path of Object.keys(document["paths"])) {
      const operation = document["paths"][path].get;
      if (operation === undefined || operation.responses[200]?.content["application/json"] === undefined)
        continue;
      const query = path === "/api/route" ? "?model=m" : "";
      const answer = await get(tokenman, path.replace("{id}", rows[0].id) + query);
      const { success, error } = schemaAt(document, "get", path, 200).safeParse(answer);
      assert.ok(success, `${path}: ${error?.message}`);
      asked.add(path);
    }
    for (const path of [
      "stats",
      "stats/history",
      "requests",
      "requests/{id}",
      "projects",
      "providers",
      "config",
      "security/budget",
      "plugins",
      "status",
      "route",
    ])
      assert.ok(asked.has(`/api/${path}`), path);
    const bad = await get(tokenman, "/api/stats?range=x", 400);
    assert.ok(schemaAt(document, "get", "/api/stats", 400).safeParse(bad).success);
  });

  test("holds what the budget answers, be it on or off", async () => {
    const path = "/api/security/budget";
    const config = "[security.budget]\nenabled = true\nmonthly_limit = 5\n";
    await using on = await startLedgered({ config });
    await using off = await startLedgered();
    for (const tokenman of [on, off]) {
      const answer = await get(tokenman, path);
      const schema = schemaAt(await get(tokenman, "/api/openapi.json"), "get", path, 200);
      assert.ok(schema.safeParse(answer).success, JSON.stringify(answer));
    }
    assert.deepEqual(await get(off, path), { enabled: false, windows: [] });
    const { enabled, windows } = await get(on, path);
    assert.equal(enabled, true);
    assert.deepEqual([windows.length, windows[0].period, windows[0].limit], [1, "monthly", 5]);
  });

  test("holds what the caches answer", async () => {
    await using tokenman = await startLedgered({ also: ["cache"] });
    const document = await get(tokenman, "/api/openapi.json");
    for (const path of ["/api/cache", "/api/prompt-cache"]) {
      const answer = await get(tokenman, path);
      const { success, error } = schemaAt(document, "get", path, 200).safeParse(answer);
      assert.ok(success, `${path}: ${error?.message}`);
    }
    for (const [method, path] of [
      ["DELETE", "/api/cache?project=web"],
      ["POST", "/api/cache/purge"],
    ] as const) {
      const answer: unknown = await (await fetch(tokenman.dashboard + path, { method })).json();
      const schema = schemaAt(document, method.toLowerCase(), path.split("?")[0]!, 200);
      assert.ok(schema.safeParse(answer).success, path);
    }
  });

  test("would not hold something else", async () => {
    await using tokenman = await filled();
    const document = await get(tokenman, "/api/openapi.json");
    const stats = await get(tokenman, "/api/stats");
    const schema = schemaAt(document, "get", "/api/stats", 200);
    assert.equal(schema.safeParse({ ...stats, requests: "3" }).success, false);
    assert.equal(schema.safeParse({ ...stats, surprise: 1 }).success, false);
  });

  test("has every route of the dashboard port, and every parameter that its paths take", async () => {
    await using tokenman = await startLedgered();
    const { paths } = await get(tokenman, "/api/openapi.json");
    for (const path of ["/metrics", "/api/events", "/api/reload", "/health", "/health/ready"])
      assert.ok(path in paths, path);
    const names = paths["/api/requests"].get.parameters.map(({ name }: Json) => name);
    assert.deepEqual(names.sort(), [
      "cursor",
      "limit",
      "model",
      "outcome",
      "project",
      "provider",
      "session",
      "since",
      "status",
      "text",
      "until",
    ]);
  });
});
