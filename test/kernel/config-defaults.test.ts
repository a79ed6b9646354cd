import assert from "node:assert/strict";
import { test } from "node:test";
import { allSections, validate } from "./config-fixture.ts";

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

test("what the config hands out cannot be changed", async () => {
  const { config } = await validate(ORIGINAL);
  const limits = config.section("security.rate_limit") as { provider_limits: { openai: { rate: number } } };
  assert.throws(() => Object.assign(limits.provider_limits.openai, { rate: 1 }), TypeError);
  assert.throws(() => (config.server.allowed_hosts as string[]).push("x"), TypeError);
  assert.throws(() => Object.assign(config.plugins.configs, { x: 1 }), TypeError);
  assert.throws(() => Object.assign(config, { server: {} }), TypeError);
});
