import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import net, { type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { recordingUpstream, selfSigned, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { forwardProxy } from "../support/forward-proxy.ts";
import { QUESTION, reaching, summary } from "../support/proxied.ts";
import { requestBytes, statusOf } from "../support/raw-client.ts";
import { socksProxy } from "../support/socks-proxy.ts";

const limits = { timeout: 20_000 };
const OK = wholeReply({ status: 200, headers: ["X-Odd", "1", "x-odd", "2"], body: '{"ok":1}' });
const certificate = selfSigned();
const folder = await mkdtemp(join(tmpdir(), "provider-proxy-"));
const caFile = join(folder, "ca.pem");
await writeFile(caFile, certificate.cert);
after(() => rm(folder, { recursive: true }));
/** A provider that exists behind the proxy only. */
const BEHIND = { api_base: "https://api.example.test", ca_file: caFile, tls_server_name: "localhost" };
const login = "us@er:hunter2hunter2";
const url = (host: string): string => `http://us%40er:hunter2hunter2@${host}`;

test(
  "a TLS provider is reached through a tunnel, which carries the request as it is and is reused",
  limits,
  async () => {
    await using upstream = await recordingUpstream({ tls: certificate, script: OK });
    await using proxy = await forwardProxy({ login, hosts: { "api.example.test:443": upstream.port } });
    await using it = await reaching({ provider: { ...BEHIND, proxy: url(proxy.host) } });
    const headers = ["X-B: 1", "x-a: 2", "X-b: 3", "Authorization: Bearer sk-x"];
    const client = await it.ask({ headers });
    await client.until('{"ok":1}');
    await client.send(requestBytes({ body: QUESTION, headers }));
    await client.until((text) => text.split('{"ok":1}').length === 3);
    assert.match(client.text, /X-Odd: 1\r\nx-odd: 2\r\n/);
    client.leave();

    const [first, second] = upstream.requests;
    assert.deepEqual(
      first!.headers.filter((_, index, all) => /^x-[ab]$/i.test(all[index - (index % 2)]!)),
      ["X-B", "1", "x-a", "2", "X-b", "3"],
    );
    assert.equal(first!.header("proxy-authorization"), undefined);
    assert.equal(first!.header("host"), "api.example.test");
    assert.equal(second!.connection, 1);
    assert.deepEqual(first!.body, second!.body);
    assert.deepEqual(proxy.asked, [
      {
        method: "CONNECT",
        target: "api.example.test:443",
        headers: [
          "Host",
          "api.example.test:443",
          "Proxy-Authorization",
          `Basic ${Buffer.from(login).toString("base64")}`,
        ],
      },
    ]);
    const shown = JSON.stringify([it.tokenman.log, it.tokenman.kernel.config.redacted()]);
    assert.ok(!shown.includes("hunter2"), "the password is shown nowhere");
  },
);

test(
  "the environment names the proxy; NO_PROXY and loopback go by; a provider may say otherwise",
  limits,
  async () => {
    await using upstream = await recordingUpstream({ tls: certificate, script: OK });
    await using proxy = await forwardProxy({ hosts: { "api.example.test:443": upstream.port } });
    const env = { HTTPS_PROXY: `http://${proxy.host}`, HTTP_PROXY: "http://127.0.0.1:9" };
    {
      await using it = await reaching({ provider: BEHIND, env });
      assert.equal(statusOf(await it.reply()), 200);
      assert.equal(proxy.asked.length, 1);
    }
    for (const other of [
      { provider: { ...BEHIND, proxy: "none" }, env },
      { provider: BEHIND, env: { ...env, NO_PROXY: "10.0.0.0/8,.example.test:443" } },
    ]) {
      await using it = await reaching(other);
      assert.equal(statusOf(await it.reply()), 502, "directly there is no such host");
      assert.equal(summary(await it.outcomes.settled(1)), "refused 502 TM_UPSTREAM_CONNECT");
    }
    await using it = await reaching({ provider: { ...BEHIND, api_base: upstream.url }, env });
    assert.equal(statusOf(await it.reply()), 200);
    assert.equal(proxy.asked.length, 1, "loopback is reached directly");
  },
);

test("a provider without TLS is asked for by its whole URL, with the request as it is", limits, async () => {
  await using upstream = await recordingUpstream({ script: OK });
  await using proxy = await forwardProxy({ login, hosts: { "api.example.test:8080": upstream.port } });
  await using it = await reaching({
    provider: { api_base: "http://api.example.test:8080/base" },
    env: { all_proxy: url(proxy.host) },
  });
  assert.equal(statusOf(await it.reply({ target: "/v1/messages?beta=true" })), 200);
  assert.equal(proxy.asked[0]!.target, "http://api.example.test:8080/base/v1/messages?beta=true");
  assert.equal(upstream.last().target, "/base/v1/messages?beta=true");
  assert.equal(upstream.last().header("host"), "api.example.test:8080");
  assert.equal(upstream.last().body.toString(), QUESTION);
});

test(
  "a proxy that refuses is told from a provider that is not reached, and its words never go to the client",
  limits,
  async () => {
    await using proxy = await forwardProxy({ login, hosts: { "api.example.test:443": 9 } });
    const cases: [Record<string, string>, string][] = [
      [{ ...BEHIND, proxy: `http://u:wrong@${proxy.host}` }, "refused 502 TM_UPSTREAM_PROXY"],
      [
        { api_base: "http://api.example.test", proxy: `http://${proxy.host}` },
        "refused 502 TM_UPSTREAM_PROXY",
      ],
      [
        { ...BEHIND, api_base: "https://other.test", proxy: url(proxy.host) },
        "refused 502 TM_UPSTREAM_CONNECT",
      ],
      [{ ...BEHIND, proxy: "http://127.0.0.1:9" }, "refused 502 TM_UPSTREAM_CONNECT"],
    ];
    for (const [provider, expected] of cases) {
      await using it = await reaching({ provider });
      const text = await it.reply();
      assert.equal(summary(await it.outcomes.settled(1)), expected);
      assert.doesNotMatch(text, /proxy-authenticate/i);
      const result = (await it.outcomes.settled(1)).attempts[0]!.result;
      assert.ok(result?.kind === "error");
    }
    for (const answer of [
      "HTTP/1.1 403 Forbidden\r\n\r\n",
      "SSH-2.0-OpenSSH_9.9\r\n\r\n",
      "x".repeat(20_000),
    ]) {
      await using odd = await forwardProxy({ hosts: {}, answer });
      await using it = await reaching({ provider: { ...BEHIND, proxy: `http://${odd.host}` } });
      assert.equal(statusOf(await it.reply()), 502);
      assert.equal(summary(await it.outcomes.settled(1)), "refused 502 TM_UPSTREAM_PROXY");
    }
  },
);

test(
  "a proxy that falls silent is given up within connect_timeout, and its connection is closed",
  limits,
  async () => {
    const closed = Promise.withResolvers<void>();
    const server = net.createServer((socket) => {
      socket.resume();
      socket.on("error", () => {});
      socket.on("close", () => closed.resolve());
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const proxy = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    await using it = await reaching({ provider: { ...BEHIND, proxy, connect_timeout: 0.2 } });
    assert.equal(statusOf(await it.reply()), 504);
    assert.equal(summary(await it.outcomes.settled(1)), "refused 504 TM_UPSTREAM_CONNECT_TIMEOUT");
    await closed.promise;
    server.close();
  },
);

test("a client that leaves while the tunnel is being made closes it", limits, async () => {
  const came = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<void>();
  const server = net.createServer((socket) => {
    socket.on("data", () => came.resolve());
    socket.on("error", () => {});
    socket.on("close", () => closed.resolve());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const proxy = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  await using it = await reaching({ provider: { ...BEHIND, proxy } });
  const client = await it.ask();
  await came.promise;
  client.leave();
  await closed.promise;
  assert.equal(summary(await it.outcomes.settled(1)), "aborted 499 TM_CLIENT_GONE");
  server.close();
});

test("a SOCKS 5 proxy resolves the name and takes a login", limits, async () => {
  await using upstream = await recordingUpstream({ tls: certificate, script: OK });
  {
    await using proxy = await socksProxy(upstream.port, login);
    const socks = `socks5h://us%40er:hunter2hunter2@${proxy.host}`;
    await using it = await reaching({ provider: { ...BEHIND, proxy: socks } });
    assert.equal(statusOf(await it.reply()), 200);
    assert.deepEqual(proxy.asked, [login, "3 api.example.test 443"]);
  }
  {
    await using plain = await recordingUpstream({ script: OK });
    await using proxy = await socksProxy(plain.port);
    const provider = { api_base: "http://[fd00::1:2]:8080", proxy: `socks5://${proxy.host}` };
    await using it = await reaching({ provider });
    assert.equal(statusOf(await it.reply()), 200);
    assert.deepEqual(proxy.asked, ["4 fd000000000000000000000000010002 8080"]);
    assert.equal(plain.last().target, "/v1/messages");
  }
  for (const [wanted, status, code] of [
    ["a:b", 0, "TM_UPSTREAM_PROXY"],
    [undefined, 2, "TM_UPSTREAM_PROXY"],
    [undefined, 5, "TM_UPSTREAM_CONNECT"],
  ] as const) {
    await using proxy = await socksProxy(upstream.port, wanted, status);
    await using it = await reaching({ provider: { ...BEHIND, proxy: `socks5://${proxy.host}` } });
    assert.equal(statusOf(await it.reply()), 502);
    assert.equal(summary(await it.outcomes.settled(1)), `refused 502 ${code}`);
  }
});

test("a proxy that is spoken to over TLS", limits, async () => {
  const tls = await import("node:tls");
  const before = tls.getCACertificates("default");
  tls.setDefaultCACertificates([...before, certificate.cert]);
  try {
    await using upstream = await recordingUpstream({ tls: certificate, script: OK });
    await using proxy = await forwardProxy({ hosts: { "api.example.test:443": upstream.port } });
    const wrapped = tls.createServer(certificate, (socket) => {
      const onward = net.connect(Number(proxy.host.split(":")[1]), "127.0.0.1");
      socket.on("error", () => onward.destroy());
      onward.on("error", () => socket.destroy());
      onward.pipe(socket).pipe(onward);
      socket.on("close", () => onward.destroy());
    });
    await new Promise<void>((resolve) => wrapped.listen(0, "127.0.0.1", resolve));
    const { port } = wrapped.address() as AddressInfo;
    {
      await using it = await reaching({ provider: { ...BEHIND, proxy: `https://localhost:${port}` } });
      assert.equal(statusOf(await it.reply()), 200);
      assert.equal(proxy.asked[0]!.target, "api.example.test:443");
    }
    wrapped.close();
  } finally {
    tls.setDefaultCACertificates(before);
  }
});

test(
  "what is no proxy is refused when it is read, with its place and without its password",
  limits,
  async () => {
    await assert.rejects(reaching({ provider: { ...BEHIND, proxy: "u:hunter2@proxy" } }), (error: Error) => {
      assert.match(
        error.message,
        /tokenman\.toml:\d+:\d+.*providers\.anthropic\.proxy: expected "none" or a proxy's URL/s,
      );
      assert.ok(!error.message.includes("hunter2"));
      return true;
    });
    await assert.rejects(
      reaching({ provider: BEHIND, env: { HTTPS_PROXY: "gopher://u:hunter2@proxy" } }),
      (error: Error) => /HTTPS_PROXY: expected/.test(error.message) && !error.message.includes("hunter2"),
    );
  },
);
