import assert from "node:assert/strict";
import { test } from "node:test";
import { definePlugin } from "@tokenman/plugin-sdk";
import { Refusals } from "../../kernel/refusals.ts";
import { bodyText, rawClient, statusOf } from "../support/raw-client.ts";
import { runKernel } from "../support/running-kernel.ts";

const limits = { timeout: 20_000 };

async function say(base: string, head: readonly string[]): Promise<string> {
  const client = await rawClient(base);
  await client.send([...head, "Connection: close", "", ""].join("\r\n"));
  await client.ended;
  return client.text;
}

/** Says where it was called. */
const here = definePlugin({
  name: "here",
  version: "1.0.0",
  apiVersion: 1,
  setup(ctx) {
    ctx.contribute("route", {
      port: "both",
      method: "GET",
      path: "/here/:name",
      handle({ params, project, query, json }) {
        json(200, { params, project: project ?? null, query: query.get("q") });
      },
    });
  },
});

test("what is refused at either door is counted by code, and told in the log", limits, async () => {
  await using it = await runKernel([here], '[auth]\nenabled = true\ntoken = "right"\n');
  const { host } = new URL(it.proxy);
  const asked: readonly [string, number, readonly string[]][] = [
    [it.proxy, 403, ["GET /here/a HTTP/1.1", "Host: evil.example"]],
    [it.dashboard, 403, ["GET /here/a HTTP/1.1", "Host: evil.example"]],
    [it.proxy, 403, ["GET /here/a HTTP/1.1", `Host: ${host}`, "Origin: https://evil.example"]],
    [it.dashboard, 401, ["GET /here/a HTTP/1.1", `Host: ${host}`]],
    [it.dashboard, 401, ["GET /here/a HTTP/1.1", `Host: ${host}`, "Authorization: Bearer wrong"]],
    [it.proxy, 400, ["GET /p/a%20b/v1/messages HTTP/1.1", `Host: ${host}`]],
    [it.proxy, 400, ["GET /here/a#b HTTP/1.1", `Host: ${host}`]],
    [it.dashboard, 400, ["GET /here/a?q=1#b HTTP/1.1", `Host: ${host}`]],
    [it.dashboard, 400, [`GET http://${host}/here/a# HTTP/1.1`, `Host: ${host}`]],
    // These keep nobody out.
    [it.dashboard, 404, ["GET /nowhere HTTP/1.1", `Host: ${host}`, "Authorization: Bearer right"]],
    [it.dashboard, 405, ["POST /here/a HTTP/1.1", `Host: ${host}`, "Authorization: Bearer right"]],
    [it.dashboard, 200, ["GET /here/a HTTP/1.1", `Host: ${host}`, "Authorization: Bearer right"]],
  ];
  for (const [base, status, head] of asked)
    assert.equal(statusOf(await say(base, head)), status, head.join("\n"));
  assert.deepEqual(it.kernel.status().refusals, {
    TM_HOST_REFUSED: 2,
    TM_ORIGIN_REFUSED: 1,
    TM_UNAUTHORIZED: 2,
    TM_BAD_REQUEST: 4,
  });
  const said = it.logged.filter(({ message }) => message === "refused at the door");
  assert.deepEqual(said[0], {
    level: "warn",
    message: "refused at the door",
    facts: {
      port: "proxy",
      code: "TM_HOST_REFUSED",
      remoteAddress: "127.0.0.1",
      host: "evil.example",
      requests: 1,
      codes: { TM_HOST_REFUSED: 1 },
    },
  });
  assert.doesNotMatch(JSON.stringify(it.logged), /wrong/, "what was sent as a token is nobody's business");
});

test("a flood of refusals is one line a second in the log, and none of it is lost", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const lines: object[] = [];
  const log = { trace() {}, debug() {}, info() {}, warn: (facts: object) => lines.push(facts), error() {} };
  const refusals = new Refusals(log);
  const refused = { port: "proxy", code: "TM_UNAUTHORIZED", remoteAddress: "10.0.0.1" } as const;
  const requests = (): unknown[] => lines.map((line) => (line as { requests: number }).requests);
  for (let count = 0; count < 100; count++) refusals.add(refused);
  assert.deepEqual(requests(), [1]);
  t.mock.timers.tick(1_000);
  assert.deepEqual(requests(), [1, 99]);
  assert.deepEqual(lines[1], { ...refused, requests: 99, codes: { TM_UNAUTHORIZED: 99 } });
  refusals.add(refused);
  t.mock.timers.tick(1_000);
  assert.deepEqual(requests(), [1, 99, 1]);
  t.mock.timers.tick(5_000);
  refusals.add(refused);
  assert.deepEqual(requests(), [1, 99, 1, 1], "after a quiet time the next one is told at once");
  for (let count = 0; count < 3; count++) refusals.add({ ...refused, code: "TM_HOST_REFUSED" });
  refusals.add(refused);
  refusals.close();
  assert.deepEqual(requests(), [1, 99, 1, 1, 4]);
  const codes = { TM_HOST_REFUSED: 3, TM_UNAUTHORIZED: 1 };
  assert.deepEqual(lines[4], { ...refused, requests: 4, codes }, "the last one does not speak for all");
  assert.deepEqual(refusals.counts, { TM_UNAUTHORIZED: 103, TM_HOST_REFUSED: 3 });
});

test("a target in absolute form is served on both ports, by its path and query", limits, async () => {
  await using it = await runKernel([here]);
  for (const base of [it.proxy, it.dashboard]) {
    const { host } = new URL(base);
    const reply = await say(base, [`GET http://${host}/here/a?q=1 HTTP/1.1`, `Host: ${host}`]);
    assert.equal(statusOf(reply), 200, reply);
    assert.deepEqual(JSON.parse(bodyText(reply)), { params: { name: "a" }, project: null, query: "1" });
  }
  const { host } = new URL(it.proxy);
  const project = await say(it.proxy, [`GET http://${host}/p/web/here/a HTTP/1.1`, `Host: ${host}`]);
  assert.equal(JSON.parse(bodyText(project)).project, "web");
  // The dashboard knows no projects in paths.
  const none = await say(it.dashboard, [`GET /p/web/here/a HTTP/1.1`, `Host: ${host}`]);
  assert.equal(statusOf(none), 404);
});
