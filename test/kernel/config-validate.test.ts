import assert from "node:assert/strict";
import { test } from "node:test";
import { FILE, summaries, validate } from "./config-fixture.ts";

test("all problems are reported at once, each at its place, in the file's order", async () => {
  const validation = await validate(`serverr = 1
[server]
proxy_prt = 7677
proxy_port = "7677"
log_level = "loud"
read_timeout = -1
allowed_hosts = ["a", 3]
bind_address = "nope:80"

[security.pi]
action = "log"
[security.pii]
  action = "delete"
allow_list = "x"
enabled = "yes"

[providers.anthropic]
api_bas = "x"
timeout = "long"
[providers."a b"]
format = 3
[compression]
minify_json = true
[resilience]
retry_max_attempts = 1.5
cb_failure_threshold = 0
[security.rate_limit.provider_limits]
b = { rate = 1, brust = 2 }
c = { rate = "x" }
d = "fast"
[metrics]
retention_days = 1979-05-27T07:32:00Z
`);
  assert.deepEqual(summaries(validation), [
    "1:1 TM_CONFIG_UNKNOWN_KEY serverr: unknown key, did you mean server?",
    "3:1 TM_CONFIG_UNKNOWN_KEY server.proxy_prt: unknown key, did you mean proxy_port?",
    '4:14 TM_CONFIG_INVALID server.proxy_port: expected an integer from 0 to 65535, found "7677"',
    '5:13 TM_CONFIG_INVALID server.log_level: expected one of "trace", "debug", "info", "warn", "error", "fatal", "silent", found "loud"',
    "6:16 TM_CONFIG_INVALID server.read_timeout: expected a number from 0 to 2000000, found -1",
    "7:23 TM_CONFIG_INVALID server.allowed_hosts[1]: expected text, found 3",
    '8:16 TM_CONFIG_INVALID server.bind_address: expected an IP address or a host name, without a port, found "nope:80"',
    "10:11 TM_CONFIG_UNKNOWN_KEY security.pi: unknown key, did you mean pii?",
    '13:12 TM_CONFIG_INVALID security.pii.action: expected one of "redact", "hash", "log", "block", found "delete"',
    '14:14 TM_CONFIG_INVALID security.pii.allow_list: expected a list, each element text, found "x"',
    '15:11 TM_CONFIG_INVALID security.pii.enabled: expected true or false, found "yes"',
    "18:1 TM_CONFIG_UNKNOWN_KEY providers.anthropic.api_bas: unknown key, did you mean api_base?",
    '19:11 TM_CONFIG_INVALID providers.anthropic.timeout: expected a number of at least 0, found "long"',
    '21:10 TM_CONFIG_INVALID providers."a b".format: expected one of "anthropic", "openai", found 3',
    "23:1 TM_CONFIG_UNKNOWN_KEY compression.minify_json: unknown key; a key of that name belongs in [compression.rules]",
    "25:22 TM_CONFIG_INVALID resilience.retry_max_attempts: expected an integer of at least 0, found 1.5",
    "26:24 TM_CONFIG_INVALID resilience.cb_failure_threshold: expected an integer of at least 1, found 0",
    "28:17 TM_CONFIG_UNKNOWN_KEY security.rate_limit.provider_limits.b.brust: unknown key, did you mean burst?",
    '29:14 TM_CONFIG_INVALID security.rate_limit.provider_limits.c.rate: expected a number above 0, found "x"',
    '30:5 TM_CONFIG_INVALID security.rate_limit.provider_limits.d: expected a number above 0 or a table, found "fast"',
    "32:18 TM_CONFIG_INVALID metrics.retention_days: expected an integer of at least 0, found a date",
  ]);
  assert.ok(validation.problems.every((problem) => problem.exit === 78));
});

test("a problem shows the lines around it", async () => {
  const { problems } = await validate("[server]\n\tproxy_prt = 7677 # mine\n\n[cache]\n");
  assert.equal(
    problems[0]!.describe(),
    [
      `${FILE}:2:2: TM_CONFIG_UNKNOWN_KEY server.proxy_prt: unknown key, did you mean proxy_port?`,
      "  1 | [server]",
      "> 2 |  proxy_prt = 7677 # mine",
      "    |  ^^^^^^^^^",
      "  3 |",
    ].join("\n"),
  );
});

test("places are exact however the file spells its tables", async () => {
  const spelt: readonly (readonly [text: string, place: string])[] = [
    ["server = { proxy_port = 1, dashbord_port = 2 }", "1:28"],
    ["server.dashbord_port = 2", "1:8"],
    ['"server" . "dashbord_port" = 2', "1:12"],
    ["[server]\r\n\r\ndashbord_port = 2\r\n", "3:1"],
    ["[ server ]\nallowed_hosts = [\n  'a',\n  # c\n  3,\n]", "5:3"],
    ["[server.dashbord_port]\nx = 1", "1:9"],
    ["[server]\n[server.proxy_port]\nx = 1", "2:9"],
    ["[[server]]\nproxy_port = 1", "1:3"],
    ["security = 3", "1:12"],
    ["x = '''\n\n'''\nserver.log_level = 'é𝒳'", "1:1"],
  ];
  for (const [text, place] of spelt) {
    const [first] = (await validate(text)).problems;
    assert.equal(`${first!.place!.line}:${first!.place!.column}`, place, text);
  }
});

test("things that must be tables are asked for as tables, once", async () => {
  assert.deepEqual(
    summaries(await validate("security = 3\n[[server]]\nproxy_port = 1\n[projects]\nx = 1\n")),
    [
      "1:12 TM_CONFIG_INVALID security: expected a table, found a value",
      "2:3 TM_CONFIG_INVALID server: expected a table, found a list",
      "5:5 TM_CONFIG_INVALID projects.x: expected a table, found a value",
    ],
  );
});

test("ports that are equal are refused, unless both are any free one", async () => {
  assert.deepEqual(summaries(await validate("server.proxy_port = 80\nserver.dashboard_port = 80")), [
    "2:25 TM_CONFIG_INVALID server.dashboard_port: expected two different ports, found 80 for both",
  ]);
  assert.deepEqual(summaries(await validate("server.proxy_port = 7678")), [
    "1:21 TM_CONFIG_INVALID server.dashboard_port: expected two different ports, found 7678 for both",
  ]);
  assert.deepEqual(summaries(await validate("server.proxy_port = 0\nserver.dashboard_port = 0")), []);
});

test("TLS needs both files, and auth a token", async () => {
  assert.deepEqual(
    summaries(await validate('[server]\ntls_enabled = true\nkey_file = ""\n[auth]\nenabled = true')),
    [
      "2:15 TM_CONFIG_INVALID server.cert_file: expected a file, as tls_enabled is true, found nothing",
      "3:12 TM_CONFIG_INVALID server.key_file: expected a file, as tls_enabled is true, found nothing",
      "5:11 TM_CONFIG_INVALID auth.token: expected a token, as auth.enabled is true, found nothing; TOKENMAN_AUTH_TOKEN may hold it",
    ],
  );
  assert.deepEqual(summaries(await validate('auth = { enabled = true, token = "a b" }')), [
    "1:34 TM_CONFIG_INVALID auth.token: expected visible ASCII characters without spaces, found other text",
  ]);
});

test("a bind address that others can reach needs auth, or to be allowed", async () => {
  const open = ["0.0.0.0", "::", "[::]", "192.168.1.4", "box.example", "::ffff:10.0.0.1"];
  const closed = ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"];
  const bind = (address: string, more = "") => validate(`[server]\nbind_address = "${address}"\n${more}`);
  for (const address of open) {
    const [problem] = (await bind(address)).problems;
    assert.equal(problem?.code, "TM_CONFIG_OPEN_BIND", address);
    assert.equal(problem.place!.column, 16);
    assert.deepEqual((await bind(address, "allow_open_bind = true")).problems, []);
    assert.deepEqual((await bind(address, '[auth]\nenabled = true\ntoken = "t"')).problems, []);
  }
  for (const address of closed) assert.deepEqual((await bind(address)).problems, [], address);
  for (const address of ["", " ", "1.2.3", "a b", "http://x", "127.0.0.1:80", "-x"]) {
    assert.equal((await bind(address)).problems[0]?.code, "TM_CONFIG_INVALID", address);
  }
  assert.equal((await bind("[::1]")).config.server.bind_address, "::1");
});

test("the proxy port demands the token where others can reach it, or where the config says so", async () => {
  const proxy = async (text: string) =>
    (await validate(`[auth]\nenabled = true\ntoken = "t"\n${text}`)).config.auth.proxy;
  assert.equal(await proxy(""), false);
  assert.equal(await proxy("proxy = true"), true);
  assert.equal(await proxy('[server]\nbind_address = "0.0.0.0"'), true);
  assert.equal(await proxy('proxy = false\n[server]\nbind_address = "0.0.0.0"'), false);
});

test("keys that could reach a prototype are refused or are plain data", async () => {
  const validation = await validate(
    `["__proto__"]
x = 1
[server.__proto__]
y = 1
[routing.model_map]
constructor = "a"
__proto__ = "b"
toString = "c"
[providers.__proto__]
name = "x"
[projects.__proto__]
disable = []
[providers.hasOwnProperty]
name = "y"
`,
  );
  assert.deepEqual(summaries(validation), [
    "1:2 TM_CONFIG_UNKNOWN_KEY __proto__: this key is never allowed",
    "3:9 TM_CONFIG_UNKNOWN_KEY server.__proto__: this key is never allowed",
    "7:1 TM_CONFIG_UNKNOWN_KEY routing.model_map.__proto__: this key is never allowed",
    "9:12 TM_CONFIG_UNKNOWN_KEY providers.__proto__: this key is never allowed",
    "11:11 TM_CONFIG_UNKNOWN_KEY projects.__proto__: this key is never allowed",
  ]);
  const routing = validation.config.section("routing") as { model_map: Record<string, string> };
  assert.deepEqual(Object.entries(routing.model_map), [
    ["constructor", "a"],
    ["toString", "c"],
  ]);
  assert.equal(({} as Record<string, unknown>)["x"], undefined);
  assert.equal(({} as Record<string, unknown>)["y"], undefined);
});

test("a config with problems is usable all the same: what is wrong has its default", async () => {
  const { config } = await validate(
    '[server]\nproxy_port = "x"\ndashboard_port = 9\n[security.pii]\naction = 3\nallow_list = ["x"]',
  );
  assert.equal(config.server.proxy_port, 7677);
  assert.equal(config.server.dashboard_port, 9);
  assert.deepEqual(config.section("security.pii"), { action: "log", allow_list: ["x"] });
});

test("control characters in keys and values do not reach the terminal", async () => {
  const { problems } = await validate('"\\u001b[31m\\u202e" = 1\nserver.log_level = "\\u001b]0;x\\u0007"');
  const text = problems.map((problem) => problem.describe()).join("\n");
  assert.doesNotMatch(text, /(?!\n)[\p{Cc}\p{Bidi_Control}]/u);
  assert.match(text, /"\\u001b\[31m\\u202e": unknown key/);
});

test("what needs a restart is told from what a reload can change", async () => {
  const old = (await validate("[server]\nproxy_port = 1\n")).config;
  const { config } = await validate(
    '[server]\nproxy_port = 2\ndata_dir = "/data"\nlog_level = "debug"\nbind_address = "::1"\n[cache]\nenabled = false\n',
  );
  assert.deepEqual(config.changedFixed(old), ["server.bind_address", "server.proxy_port", "server.data_dir"]);
  assert.deepEqual(config.changedFixed(config), []);
  const kept = config.keepFixed(old);
  assert.deepEqual(kept.changedFixed(old), []);
  assert.equal(kept.server.proxy_port, 1);
  assert.equal(kept.server.log_level, "debug");
  assert.equal((kept.section("server") as { proxy_port: number }).proxy_port, 1);
  assert.equal(kept.enabled("cache"), false);
});
