import assert from "node:assert/strict";
import { test } from "node:test";
import { recordingUpstream, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { bench, MESSAGE } from "../support/faulty.ts";
import { startTokenman } from "../support/kernel.ts";
import { bodyText, rawClient, statusOf } from "../support/raw-client.ts";

const OK = wholeReply({ status: 200, body: '{"ok":1}' });
const limits = { timeout: 20_000 };

/** Sends one request with exactly these field lines, and gives what came back. */
async function say(
  base: string,
  lines: readonly string[],
  { method = "GET", target = "/health", body = "" } = {},
): Promise<string> {
  const client = await rawClient(base);
  const length = body === "" ? [] : [`Content-Length: ${body.length}`];
  await client.send(
    [`${method} ${target} HTTP/1.1`, ...lines, ...length, "Connection: close", "", body].join("\r\n"),
  );
  await client.ended;
  return client.text;
}

test(
  "fault 36: a Host that is not ours is refused on both ports: a rebound name gets nothing",
  limits,
  async () => {
    await using b = await bench({ server: 'allowed_hosts = ["box.lan"]' });
    const { proxy, dashboard } = b.tokenman;
    const strangers = [
      "evil.example",
      "evil.example:7677",
      "localhost.evil.example",
      "127.0.0.1.evil.example",
      "127.0.0.1.nip.io",
      "notlocalhost",
      "xlocalhost:1",
      "box.lan.evil",
      "sub.box.lan",
      "localhost@evil.example",
      "evil.example#localhost",
      "localhost:80:90",
      "localhost:",
      "[::1",
      "::1",
      "0x7f000001.x",
      "localhost evil.example",
      "",
      "[::1].evil.example",
      "localhost/",
      "localhost,evil.example",
    ];
    const friends = [
      "localhost",
      "LOCALHOST:7677",
      "localhost.",
      "a.localhost:1",
      "127.0.0.1",
      "127.9.9.9:1",
      "[::1]:7678",
      "192.168.0.9",
      "box.lan",
      "Box.Lan:80",
    ];
    for (const base of [proxy, dashboard]) {
      for (const host of strangers) {
        const text = await say(base, [`Host: ${host}`]);
        assert.ok([400, 403].includes(statusOf(text)), `${host}: ${text}`);
        if (statusOf(text) === 403) assert.match(bodyText(text), /TM_HOST_REFUSED/);
      }
      for (const host of friends) assert.equal(statusOf(await say(base, [`Host: ${host}`])), 200, host);
    }
  },
);

test(
  "fault 36: a web page of another origin can do nothing on either port, and read nothing",
  limits,
  async () => {
    await using b = await bench({ more: '[dashboard]\nallowed_origins = ["https://mine.example"]\n' });
    b.upstream.script(OK);
    const { proxy, dashboard } = b.tokenman;
    const own = (base: string): string => new URL(base).host;
    for (const base of [proxy, dashboard]) {
      const target = base === proxy ? "/v1/messages" : "/api/reload";
      const bodies = base === proxy ? MESSAGE : "";
      const post = (lines: readonly string[]): Promise<string> =>
        say(base, [`Host: ${own(base)}`, ...lines], { method: "POST", target, body: bodies });
      const foreign = [
        "https://evil.example",
        "http://evil.example",
        "null",
        "http://localhost:1",
        "http://127.0.0.1:1",
        `https://${own(base)}`.replace("https", "http").replace(/\d+$/, "1"),
        `http://${own(base)}.evil.example`,
        `http://evil.example/${own(base)}`,
        "http://",
        "garbage",
        "",
      ];
      for (const origin of foreign) {
        const text = await post([`Origin: ${origin}`]);
        assert.equal(statusOf(text), 403, `${origin}: ${text}`);
        assert.match(text, /TM_ORIGIN_REFUSED/);
        assert.doesNotMatch(text, /access-control/i);
      }
      assert.equal(statusOf(await post(["Sec-Fetch-Site: cross-site"])), 403);
      assert.equal(statusOf(await post(["Sec-Fetch-Site: same-origin"])), 200);
      for (const origin of [`http://${own(base)}`, "https://mine.example"])
        assert.equal(statusOf(await post([`Origin: ${origin}`])), 200, origin);
      // An editor or an app of this machine is a client of the proxy; the dashboard's only client is its own page.
      const expected = base === proxy ? 200 : 403;
      assert.equal(statusOf(await post(["Origin: vscode-webview://abc"])), expected);
      const preflight = await say(
        base,
        [`Host: ${own(base)}`, "Origin: https://evil.example", "Access-Control-Request-Method: POST"],
        { method: "OPTIONS", target },
      );
      assert.equal(statusOf(preflight), 403, "a preflight is not let through");
    }
    assert.equal(b.upstream.requests.length, 4, "nothing of the foreign pages went upstream");
    // A page may send what needs no preflight; what it cannot do is read the answer.
    for (const base of [proxy, dashboard]) {
      const text = await say(base, [`Host: ${own(base)}`]);
      assert.doesNotMatch(text, /access-control-allow/i);
    }
  },
);

test(
  "fault 36: the token of [auth] is demanded on the dashboard port, in constant shape",
  limits,
  async () => {
    await using tokenman = await startTokenman({
      config: '[auth]\nenabled = true\ntoken = "s3cret-token"\n',
    });
    const ask = (lines: readonly string[], target = "/api/status") =>
      say(tokenman.dashboard, ["Host: localhost", ...lines], { target });
    const wrong = [
      [],
      ["Authorization: Bearer s3cret-toke"],
      ["Authorization: Bearer s3cret-token2"],
      ["Authorization: s3cret-token"],
      ["X-Tokenman-Token:"],
      ["Cookie: s3cret-token"],
    ];
    for (const lines of wrong) assert.equal(statusOf(await ask(lines)), 401, lines.join());
    assert.equal(statusOf(await ask(["Authorization: bearer  s3cret-token"])), 200);
    assert.equal(statusOf(await ask(["X-Tokenman-Token: s3cret-token"])), 200);
    assert.equal(statusOf(await ask([], "/health")), 200, "a health probe needs none");
    for (const target of [
      "/health/../api/status",
      "//api/status",
      "/%61pi/status",
      "/health%2f..%2fapi/status",
      "/api/status/",
      "/API/status",
    ])
      assert.notEqual(statusOf(await ask([], target)), 200, target);
  },
);

test("fault 37: a request does not choose the server it goes to, however it names one", limits, async () => {
  await using elsewhere = await recordingUpstream({ script: OK });
  await using b = await bench();
  b.upstream.script(OK);
  const evil = new URL(elsewhere.url).host;
  const targets = [
    `http://${evil}/v1/messages`,
    `https://${evil}/v1/messages`,
    `//${evil}/v1/messages`,
    `/p/x//${evil}/v1/messages`,
    `/p/x/http://${evil}/`,
    `/@${evil}/v1/messages`,
    `/v1/messages@${evil}`,
    `/\\${evil}/`,
    `/v1/messages?url=http://${evil}/`,
    `/v1/messages#@${evil}`,
    `/..//${evil}/v1/messages`,
    `ftp://${evil}/v1/messages`,
    `http://localhost@${evil}/v1/messages`,
    `/p/x/../${evil}`,
  ];
  const lines = [
    [
      `X-Forwarded-Host: ${evil}`,
      `X-Forwarded-Server: ${evil}`,
      `Forwarded: host=${evil}`,
      `X-Host: ${evil}`,
    ],
    [`X-Original-URL: http://${evil}/`, `X-Rewrite-URL: http://${evil}/`, `X-Tokenman-Provider: ${evil}`],
    [
      `X-Tokenman-Upstream: http://${evil}`,
      `X-Api-Base: http://${evil}`,
      `OpenAI-Base-Url: http://${evil}`,
      "anthropic-version: 2023-06-01",
    ],
  ];
  const asked = async (target: string, more: readonly string[]): Promise<void> => {
    const text = await say(b.tokenman.proxy, ["Host: localhost", ...more], {
      method: "POST",
      target,
      body: MESSAGE,
    });
    assert.ok(statusOf(text) >= 200, `${target}: ${text}`);
  };
  for (const target of targets) await asked(target, ["anthropic-version: 1"]);
  for (const more of lines) await asked("/v1/messages", more);
  assert.equal(elsewhere.connections, 0);
  const host = new URL(b.upstream.url).host;
  for (const { headers, target } of b.upstream.requests) {
    const hosts = headers.flatMap((name, index) =>
      /^host$/i.test(name) && index % 2 === 0 ? [headers[index + 1]] : [],
    );
    assert.deepEqual(hosts, [host], "the Host is the configured server's");
    assert.ok(target.startsWith("/"), `${target} is a path`);
  }
  assert.ok(b.upstream.requests.length > lines.length);
});

test("fault 37: a path does not lead out of the folder of a provider's base", limits, async () => {
  await using b = await bench();
  b.upstream.script(OK);
  await using tenant = await startTokenman({
    config: ["anthropic", "openai"]
      .map((name) => `[providers.${name}]\napi_base = "${b.upstream.url}/tenant-a"\nauth = "client"\n`)
      .join(""),
  });
  const ways = [
    "/../tenant-b/v1/x",
    "/v1/../../tenant-b",
    "/%2e%2e/tenant-b",
    "/.%2E/tenant-b",
    "/v1/messages/..%2f..%2f..%2ftenant-b",
    "/..\\tenant-b",
    "/v1/%2E./%2e%2e/tenant-b",
    "/v1/x/..",
    "/p/x/../tenant-b",
    "/..;/tenant-b",
    "/v1/messages/..;x=1/..%3B/../tenant-b",
    "/%2e%2e%3ba/tenant-b",
  ];
  for (const target of ways) {
    const text = await say(tenant.proxy, ["Host: localhost", "anthropic-version: 1"], {
      method: "POST",
      target,
      body: "{}",
    });
    assert.equal(statusOf(text), 400, `${target}: ${text}`);
  }
  for (const { target } of b.upstream.requests) assert.ok(!/tenant-b/.test(target), target);
  const fine = await say(tenant.proxy, ["Host: localhost", "anthropic-version: 1"], {
    method: "POST",
    target: "/v1/files/a..b/...?x=/../y",
    body: "{}",
  });
  assert.equal(statusOf(fine), 200);
  assert.equal(b.upstream.last().target, "/tenant-a/v1/files/a..b/...?x=/../y");
});

test(
  "fault 37: a project's name cannot be a path, and an unknown one gets the default's providers",
  limits,
  async () => {
    await using b = await bench();
    b.upstream.script(OK);
    for (const name of ["a b", "%2e%2e%2fx", "a/b", `${"x".repeat(65)}`, "é", "a;b", "a\tb"]) {
      const header = await say(b.tokenman.proxy, ["Host: localhost", `X-Tokenman-Project: ${name}`], {
        method: "POST",
        target: "/v1/messages",
        body: MESSAGE,
      });
      assert.equal(statusOf(header), 400, name);
    }
    for (const target of [
      "/p/x%2f/v1/messages",
      "/p//v1/messages",
      "/p/%00/v1/messages",
      `/p/${"x".repeat(65)}/v1/messages`,
    ]) {
      const text = await say(b.tokenman.proxy, ["Host: localhost"], {
        method: "POST",
        target,
        body: MESSAGE,
      });
      assert.equal(statusOf(text), 400, target);
    }
    assert.equal(b.upstream.requests.length, 0);
    const unknown = await say(b.tokenman.proxy, ["Host: localhost"], {
      method: "POST",
      target: "/p/__proto__/v1/messages",
      body: MESSAGE,
    });
    assert.equal(statusOf(unknown), 200);
    assert.equal(b.upstream.last().target, "/v1/messages");
  },
);
