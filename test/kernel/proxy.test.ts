import assert from "node:assert/strict";
import { test } from "node:test";
import { ProxyEnvironment, parseProxy, proxyAuthorization } from "../../kernel/upstream/proxy.ts";

function proxyOf(env: Record<string, string>, url: string): string | undefined {
  return new ProxyEnvironment(env).proxyFor(new URL(url))?.address.host ?? undefined;
}

test("each scheme has its variable, lower case goes first, ALL_PROXY is for both", () => {
  const env = { HTTPS_PROXY: "http://a:1", HTTP_PROXY: "http://b:2", ALL_PROXY: "http://c:3" };
  assert.equal(proxyOf(env, "https://api.example.com"), "a:1");
  assert.equal(proxyOf(env, "http://api.example.com"), "b:2");
  assert.equal(proxyOf({ ...env, https_proxy: "http://d:4" }, "https://api.example.com"), "d:4");
  assert.equal(proxyOf({ HTTPS_PROXY: "", all_proxy: "http://c:3" }, "https://api.example.com"), "c:3");
  assert.equal(proxyOf({ HTTP_PROXY: "http://b:2" }, "https://api.example.com"), undefined);
  assert.equal(proxyOf({ HTTPS_PROXY: "proxy.corp:3128" }, "https://api.example.com"), "proxy.corp:3128");
  assert.equal(proxyOf({}, "https://api.example.com"), undefined);
});

test("loopback is never proxied", () => {
  const env = { ALL_PROXY: "http://a:1" };
  for (const host of [
    "localhost",
    "LOCALHOST",
    "ollama.localhost",
    "127.0.0.1",
    "127.8.8.8",
    "[::1]",
    "localhost.",
  ])
    assert.equal(proxyOf(env, `http://${host}:11434`), undefined, host);
  assert.equal(proxyOf(env, "http://localhost.example.com"), "a:1");
  assert.equal(proxyOf(env, "http://10.0.0.1"), "a:1");
});

test("NO_PROXY knows domains, wildcards, addresses, ranges and ports", () => {
  const cases: [rule: string, direct: string[], proxied: string[]][] = [
    ["*", ["example.com", "10.0.0.1"], []],
    [
      "example.com",
      ["example.com", "api.example.com", "EXAMPLE.com", "example.com."],
      ["notexample.com", "example.org"],
    ],
    [".example.com", ["example.com", "api.example.com"], ["notexample.com"]],
    ["*.example.com", ["api.example.com", "a.b.example.com"], ["example.com"]],
    ["example.com:8443", ["example.com:8443", "api.example.com:8443"], ["example.com", "example.com:444"]],
    ["example.com:443", ["example.com"], ["example.com:8443"]],
    ["10.1.2.3", ["10.1.2.3"], ["10.1.2.4", "example.com"]],
    ["10.0.0.0/8", ["10.255.0.1"], ["11.0.0.1", "10.example.com"]],
    ["10.0.0.0/8:8080", ["10.1.1.1:8080"], ["10.1.1.1"]],
    ["fd00::/8", ["[fd12::1]"], ["[fe80::1]", "10.0.0.1"]],
    ["fd00::1:2", ["[fd00::1:2]", "[fd00::1:2]:99"], ["[fd00::1]"]],
    ["[fd00::1]:8080", ["[fd00::1]:8080"], ["[fd00::1]"]],
    ["a.test, b.test  c.test,", ["a.test", "x.b.test", "c.test"], ["d.test"]],
    ["10.0.0.0/99", [], ["10.0.0.1"]],
  ];
  for (const [rule, direct, proxied] of cases) {
    for (const name of ["NO_PROXY", "no_proxy"]) {
      const env = { HTTPS_PROXY: "http://a:1", [name]: rule };
      for (const host of direct) assert.equal(proxyOf(env, `https://${host}`), undefined, `${rule}: ${host}`);
      for (const host of proxied) assert.equal(proxyOf(env, `https://${host}`), "a:1", `${rule}: ${host}`);
    }
  }
});

test("a variable that names no proxy is refused by its name, without its text", () => {
  for (const text of [
    "ftp://u:hunter2@a:1",
    "http://",
    "socks4://u:hunter2@a:1",
    "http://u:hunter2@a:x",
    "http://a/hunter2",
  ]) {
    assert.throws(
      () => new ProxyEnvironment({ HTTPS_PROXY: text }),
      (error: Error & { code: string }) =>
        error.code === "TM_CONFIG_INVALID" &&
        error.message.startsWith("HTTPS_PROXY: ") &&
        !error.message.includes("hunter2"),
    );
  }
});

test("user and password are decoded", () => {
  const proxy = parseProxy("http://us%40er:p%3Ass@proxy:3128", "X");
  assert.equal(proxyAuthorization(proxy), `Basic ${Buffer.from("us@er:p:ss").toString("base64")}`);
  assert.equal(proxyAuthorization(parseProxy("http://proxy", "X")), undefined);
  assert.deepEqual(
    ["http://p", "https://p", "socks5://p", "socks5h://[::1]:9"].map((url) => parseProxy(url, "X").address),
    [
      { hostname: "p", host: "p:80", protocol: "http:", port: "80" },
      { hostname: "p", host: "p:443", protocol: "https:", port: "443" },
      { hostname: "p", host: "p:1080", protocol: "http:", port: "1080" },
      { hostname: "::1", host: "[::1]:9", protocol: "http:", port: "9" },
    ],
  );
});
