import assert from "node:assert/strict";
import { test } from "node:test";
import { type StandardSchema, z } from "@tokenman/plugin-sdk";
import { allSections, builtSections, FILE, summaries, thirdParty, validate } from "./config-fixture.ts";

test("nothing written gives the defaults of the design", async () => {
  const { config, problems, warnings } = await validate("", { sections: allSections });
  assert.deepEqual(problems, []);
  assert.deepEqual(warnings, []);
  assert.deepEqual(config.server, {
    bind_address: "127.0.0.1",
    allow_open_bind: false,
    allowed_hosts: [],
    proxy_port: 7677,
    dashboard_port: 7678,
    log_level: "info",
    data_dir: "/home/ada/.tokenman",
    tls_enabled: false,
    cert_file: "",
    key_file: "",
    read_timeout: 10,
    write_timeout: 300,
    idle_timeout: 120,
    stream_timeout: 600,
    max_connections: 0,
    max_body_size: 33_554_432,
    max_response_size: 104_857_600,
    max_log_body: 0,
    max_stream_sessions: 100,
    session_ttl: 3600,
    store_body: false,
  });
  assert.deepEqual(config.auth, { enabled: false, token: "", proxy: false });
  assert.deepEqual(config.plugins, { order: undefined, dir: "/home/ada/.tokenman/plugins", configs: {} });
  assert.deepEqual(config.section("compression.rules"), {
    minify_json: true,
    collapse_whitespace: false,
    minify_xml: false,
    dedup_instructions: false,
    strip_markdown: false,
    tool_output: false,
  });
  assert.deepEqual(config.section("security.budget"), {
    hourly_limit: 0,
    daily_limit: 0,
    monthly_limit: 0,
    alert_thresholds: [50, 75, 90],
  });
  assert.deepEqual(config.section("resilience"), {
    retry_max_attempts: 3,
    retry_base_delay_ms: 500,
    retry_max_delay_ms: 30_000,
    circuit_breaker_enabled: true,
    cb_failure_threshold: 5,
    cb_reset_timeout_seconds: 60,
    cb_half_open_max_calls: 1,
  });
  const on = [
    "cache",
    "compression.dedup",
    "compression.rules",
    "security.pii",
    "security.injection",
    "dashboard",
  ];
  const off = [
    "compression.heartbeat",
    "compression.history",
    "compression.summarization",
    "security.budget",
  ];
  for (const path of on) assert.equal(config.enabled(path), true, path);
  for (const path of [...off, "security.rate_limit", "tracing"])
    assert.equal(config.enabled(path), false, path);
  assert.equal(config.section("no.such"), undefined);
});

/** Every key of the design's list, as a config for the original would write them. */
const ORIGINAL = `
[server]
bind_address = "127.0.0.1"
allowed_hosts = ["tunnel.example"]
proxy_port = 7677
dashboard_port = 7678
log_level = "info"
data_dir = "~/.tokenman"
tls_enabled = true
cert_file = "~/cert.pem"
key_file = "key.pem"
read_timeout = 10
write_timeout = 300
idle_timeout = 120
max_body_size = 33554432
max_response_size = 104857600
stream_timeout = 600
max_log_body = 0
max_stream_sessions = 100
session_ttl = 3600
store_body = false
[auth]
enabled = true
token = "a-token"
[providers.anthropic]
auth = "client"
name = "anthropic"
format = "anthropic"
api_base = "https://api.anthropic.com"
key_ref = "keyring://tokenman/anthropic"
models = ["claude-sonnet-4-20250514"]
enabled = true
priority = 1
timeout = 600
[routing]
default_provider = "anthropic"
fallback_enabled = true
heartbeat_model = ""
[routing.model_map]
"gpt-4o" = "openai"
[compression.dedup]
enabled = true
ttl_seconds = 300
[compression.rules]
enabled = true
minify_json = true
collapse_whitespace = false
minify_xml = false
dedup_instructions = false
strip_markdown = false
tool_output = false
[compression.heartbeat]
enabled = false
dedup_window_seconds = 30
heartbeat_model = ""
[compression.history]
enabled = false
window_size = 10
[compression.summarization]
enabled = false
max_messages = 50
summary_model = "claude-haiku"
summary_max_tokens = 1024
[security.pii]
enabled = true
action = "log"
allow_list = ["ada@example.com"]
[security.injection]
enabled = true
action = "log"
[security.budget]
enabled = false
hourly_limit = 0
daily_limit = 10.5
monthly_limit = 0
alert_thresholds = [50, 75, 90]
[security.rate_limit]
enabled = false
default_rate = 10
default_burst = 20
[security.rate_limit.provider_limits]
anthropic = 5
openai = { rate = 2.5, burst = 4 }
[resilience]
retry_max_attempts = 3
retry_base_delay_ms = 500
retry_max_delay_ms = 30000
circuit_breaker_enabled = true
cb_failure_threshold = 5
cb_reset_timeout_seconds = 60
cb_half_open_max_calls = 1
[tracing]
enabled = true
exporter = "otlp-grpc"        # "stdout", "otlp-grpc", or "otlp-http"
endpoint = "localhost:4317"    # OTLP collector address
service_name = "tokenman"
sample_rate = 1.0              # 0.0 to 1.0
insecure = true                # skip TLS for local dev
[dashboard]
enabled = true
auto_open = false
allowed_origins = []
[metrics]
retention_days = 30
cache_ttl_seconds = 300
[cache]
enabled = true
ttl_seconds = 60
memory_bytes = 1000000
max_entry_bytes = 1000
ignore_fields = ["metadata"]
[plugins]
order = ["cache", "./mine.ts"]
dir = "~/.tokenman/plugins"
[plugins.configs.mine]
url = "http://localhost"
[projects.work]
disable = ["cache"]
[projects.work.security.pii]
action = "redact"
[projects.work.resilience]
retry_max_attempts = 1
`;

test("a config with every key of the original loads as it is", async () => {
  const { config, problems } = await validate(ORIGINAL);
  assert.deepEqual(problems, []);
  assert.equal(config.server.cert_file, "/home/ada/cert.pem");
  assert.equal(config.server.key_file, "/etc/tokenman/key.pem");
  assert.deepEqual(config.section("security.rate_limit"), {
    default_rate: 10,
    default_burst: 20,
    provider_limits: { anthropic: 5, openai: { rate: 2.5, burst: 4 } },
  });
  assert.deepEqual(config.projects, ["work"]);
  assert.deepEqual([...config.disabled("work")], ["cache"]);
});

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

test("settings of features to come are named in one warning", async () => {
  const { problems, warnings } = await validate(
    "[cache]\nenabled = true\n[tracing]\n[security.pii]\naction = 'log'\n[projects.a.security.injection]\nenabled = false\n",
    { sections: allSections },
  );
  assert.deepEqual(problems, []);
  assert.deepEqual(warnings, [
    "these settings are of features that do not exist yet and have no effect: cache, security.pii, projects.a.security.injection",
  ]);
});

test("where one of a section's plugins exists, only the keys of the other are named", async () => {
  const sections = builtSections.map((spec) =>
    spec.owner === "breaker" ? { ...spec, planned: true, loaded: false } : spec,
  );
  const both = await validate("[resilience]\nretry_max_attempts = 1\ncb_failure_threshold = 2\n", {
    sections,
  });
  assert.deepEqual(both.warnings, [
    "these settings are of features that do not exist yet and have no effect: resilience (cb_failure_threshold)",
  ]);
  assert.deepEqual((await validate("[resilience]\nretry_max_attempts = 1\n", { sections })).warnings, []);
});

test("a guard that is switched on in so many words must exist and be loaded", async () => {
  const missing = await validate(
    "[security.pii]\nenabled = true\n[security.budget]\nenabled = false\n[projects.a.security.injection]\nenabled = true\n",
    { sections: allSections, env: { TOKENMAN_SECURITY_RATE_LIMIT_ENABLED: "true" } },
  );
  assert.deepEqual(
    missing.problems.map(({ code, place }) => `${code} ${place!.line ?? place!.file}`),
    ["TM_GUARD_MISSING 2", "TM_GUARD_MISSING 6", "TM_GUARD_MISSING TOKENMAN_SECURITY_RATE_LIMIT_ENABLED"],
  );
  assert.match(missing.problems[0]!.message, /^security\.pii\.enabled: .*no such feature yet/);

  const unloaded = builtSections.map((spec) => (spec.owner === "pii" ? { ...spec, loaded: false } : spec));
  const off = await validate("[security.pii]\nenabled = true\n", { sections: unloaded });
  assert.match(off.problems[0]!.message, /the plugin pii is not loaded/);
  const unsaid = await validate('[security.pii]\naction = "block"\n', { sections: unloaded });
  assert.deepEqual(unsaid.problems, []);
  assert.deepEqual(unsaid.warnings, [
    "security.pii is set, but the plugin pii is not loaded: it guards nothing",
  ]);
  assert.deepEqual((await validate("[security.pii]\nenabled = true\n")).problems, []);
});

test("a section whose plugin is not loaded is validated all the same", async () => {
  const sections = builtSections.map((spec) => ({ ...spec, loaded: false }));
  assert.deepEqual(summaries(await validate("[tracing]\nsample_rate = 2\nsample = 1\n", { sections })), [
    "2:15 TM_CONFIG_INVALID tracing.sample_rate: expected a number from 0 to 1, found 2",
    "3:1 TM_CONFIG_UNKNOWN_KEY tracing.sample: unknown key; known here: exporter, endpoint, service_name, sample_rate, insecure, enabled",
  ]);
});

test("`enabled` is taken for every plugin, and reaches only schemas that know it", async () => {
  const sections = [
    thirdParty("plain", z.strictObject({ x: z.int().default(1) })),
    thirdParty("own", z.strictObject({ enabled: z.boolean().default(false) })),
    thirdParty("none", undefined),
    thirdParty("loose", z.object({ x: z.int().default(1) }), { enabledByDefault: false }),
  ];
  const written = ["plain", "none", "loose"]
    .map((name) => `[plugins.configs.${name}]\nenabled = false\n`)
    .join("");
  const { config, problems } = await validate(written, { sections });
  assert.deepEqual(problems, []);
  assert.deepEqual(config.section("plugins.configs.plain"), { x: 1 });
  assert.deepEqual(config.section("plugins.configs.own"), { enabled: false });
  assert.equal(config.enabled("plugins.configs.plain"), false);
  assert.equal(config.enabled("plugins.configs.own"), false);
  assert.equal(config.enabled("plugins.configs.none"), false);
  const silent = (await validate("", { sections })).config;
  assert.equal(silent.enabled("plugins.configs.plain"), true);
  assert.equal(silent.enabled("plugins.configs.loose"), false);
  assert.deepEqual(
    summaries(
      await validate("[plugins.configs.none]\nx = 1\n[plugins.configs.loose]\ncolour = 1", { sections }),
    ),
    [
      "2:1 TM_CONFIG_UNKNOWN_KEY plugins.configs.none.x: unknown key; known here: enabled",
      "4:1 TM_CONFIG_UNKNOWN_KEY plugins.configs.loose.colour: unknown key; known here: x, enabled",
    ],
  );
});

test("what a loaded plugin needs and nobody wrote is missing; not so where it is off or not loaded", async () => {
  const schema = z.strictObject({ url: z.string() });
  const check = async (text: string, loaded: boolean) =>
    summaries(await validate(text, { sections: [thirdParty("hook", schema, { loaded })] }));
  const missing = "TM_CONFIG_INVALID plugins.configs.hook.url: expected text, found nothing";
  assert.deepEqual(await check("", true), [`file ${missing}`]);
  assert.deepEqual(await check("[plugins.configs.hook]\nenabled = true", true), [`1:18 ${missing}`]);
  assert.deepEqual(await check("[plugins.configs.hook]\nenabled = false", true), []);
  assert.deepEqual(await check("", false), []);
  assert.deepEqual(await check("[plugins.configs.hook]\nenabled = true", false), [`1:18 ${missing}`]);
});

test("settings of a plugin nobody loaded are kept and warned about", async () => {
  const { config, problems, warnings } = await validate("[plugins.configs.ghost]\nx = { y = 1 }\n");
  assert.deepEqual(problems, []);
  assert.deepEqual(config.plugins.configs, { ghost: { x: { y: 1 } } });
  assert.deepEqual(warnings, [
    "plugins.configs.ghost: no plugin of that name is loaded, so its settings are not checked",
  ]);
});

test("schemas of other libraries validate, with their own words and the exact place", async () => {
  const schema: StandardSchema = {
    "~standard": {
      version: 1,
      vendor: "own",
      validate(value) {
        const { colour, ...rest } = value as Record<string, unknown>;
        const extra = Object.keys(rest);
        if (extra.length > 0)
          return { issues: [{ message: `${extra[0]} is not wanted`, path: [extra[0]!] }] };
        if (colour !== "red") return { issues: [{ message: "must be red", path: ["colour"] }] };
        return Promise.resolve({ value: { colour } });
      },
    },
  };
  const sections = [thirdParty("paint", schema)];
  const good = await validate('[plugins.configs.paint]\nenabled = false\ncolour = "red"', { sections });
  assert.deepEqual(good.problems, []);
  assert.deepEqual(good.config.section("plugins.configs.paint"), { colour: "red" });
  assert.equal(good.config.enabled("plugins.configs.paint"), false);
  assert.deepEqual(summaries(await validate('[plugins.configs.paint]\ncolour = "blue"', { sections })), [
    '2:10 TM_CONFIG_INVALID plugins.configs.paint.colour: must be red (found "blue")',
  ]);
});

test("a schema that throws is a problem of its plugin", async () => {
  const schema = z.strictObject({
    x: z.int().transform((): number => {
      throw new Error("boom");
    }),
  });
  const { problems } = await validate("[plugins.configs.bad]\nx = 1", {
    sections: [thirdParty("bad", schema)],
  });
  assert.deepEqual(
    problems.map(({ code, plugin, message }) => [code, plugin, message]),
    [["TM_CONFIG_INVALID", "bad", "plugins.configs.bad: the schema failed: boom (found a table)"]],
  );
});

test("a section may nest in another one", async () => {
  const sections = [
    { ...thirdParty("x", z.strictObject({ holdout: z.number().default(0) })), path: "compression" },
    { ...thirdParty("y", z.strictObject({ n: z.int().default(1) })), path: "compression.rules" },
  ];
  const { config, problems } = await validate("[compression]\nholdout = 0.5\nrules.n = 2\n", { sections });
  assert.deepEqual(problems, []);
  assert.deepEqual(config.section("compression"), { holdout: 0.5 });
  assert.deepEqual(config.section("compression.rules"), { n: 2 });
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

test("what the config hands out cannot be changed", async () => {
  const { config } = await validate(ORIGINAL);
  const limits = config.section("security.rate_limit") as { provider_limits: { openai: { rate: number } } };
  assert.throws(() => Object.assign(limits.provider_limits.openai, { rate: 1 }), TypeError);
  assert.throws(() => (config.server.allowed_hosts as string[]).push("x"), TypeError);
  assert.throws(() => Object.assign(config.plugins.configs, { x: 1 }), TypeError);
  assert.throws(() => Object.assign(config, { server: {} }), TypeError);
});

test("freezing a config leaves a schema's own defaults alone", async () => {
  const shared = { list: [1] };
  const sections = [thirdParty("p", z.strictObject({ x: z.any().default(shared) }))];
  assert.deepEqual((await validate("", { sections })).config.section("plugins.configs.p"), {
    x: { list: [1] },
  });
  shared.list.push(2);
  assert.deepEqual(shared, { list: [1, 2] });
});

test("paths that a plugin's schema marks are made absolute", async () => {
  const path = z.string().meta({ path: true });
  const sections = [
    thirdParty("p", z.strictObject({ a: path.default("~/x"), b: z.array(path), c: path.default("") })),
  ];
  const { config } = await validate('[plugins.configs.p]\nb = ["/y", "z", "~"]', { sections });
  assert.deepEqual(config.section("plugins.configs.p"), {
    a: "/home/ada/x",
    b: ["/y", "/etc/tokenman/z", "/home/ada"],
    c: "",
  });
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
