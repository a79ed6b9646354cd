import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "@tokenman/plugin-sdk";
import { builtSections, summaries, thirdParty, validate } from "./config-fixture.ts";

test("variables go before the file and are converted to what their setting takes", async () => {
  const { config, problems, warnings } = await validate('[server]\nproxy_port = 1\nlog_level = "info"\n', {
    env: {
      TOKENMAN_SERVER_PROXY_PORT: "8080",
      TOKENMAN_SERVER_MAX_BODY_SIZE: "33_554_432",
      TOKENMAN_SERVER_READ_TIMEOUT: "0.5",
      TOKENMAN_SERVER_LOG_LEVEL: "debug",
      TOKENMAN_SERVER_STORE_BODY: "Yes",
      TOKENMAN_SERVER_ALLOWED_HOSTS: "a.example, b.example,",
      TOKENMAN_SECURITY_BUDGET_DAILY_LIMIT: "500",
      TOKENMAN_SECURITY_BUDGET_ALERT_THRESHOLDS: "[10, 20.5]",
      TOKENMAN_SECURITY_BUDGET_ENABLED: "1",
      TOKENMAN_TRACING_EXPORTER: "otlp-http",
      TOKENMAN_TRACING_SAMPLE_RATE: "1e-1",
      TOKENMAN_RESILIENCE_CB_FAILURE_THRESHOLD: "7",
      TOKENMAN_METRICS_CACHE_TTL_SECONDS: "9",
      TOKENMAN_AUTH_TOKEN: " spaced ",
      TOKENMAN_SERVER_CERT_FILE: "~/c.pem",
    },
  });
  assert.deepEqual(
    problems.map((problem) => problem.message),
    ["auth.token: expected visible ASCII characters without spaces, found other text"],
  );
  assert.deepEqual(warnings, []);
  assert.equal(config.server.proxy_port, 8080);
  assert.equal(config.server.max_body_size, 33_554_432);
  assert.equal(config.server.read_timeout, 0.5);
  assert.equal(config.server.log_level, "debug");
  assert.equal(config.server.store_body, true);
  assert.equal(config.server.cert_file, "/home/ada/c.pem");
  assert.deepEqual(config.server.allowed_hosts, ["a.example", "b.example"]);
  assert.deepEqual(config.section("security.budget"), {
    hourly_limit: 0,
    daily_limit: 500,
    monthly_limit: 0,
    alert_thresholds: [10, 20.5],
  });
  assert.equal(config.enabled("security.budget"), true);
  assert.equal((config.section("tracing") as { sample_rate: number }).sample_rate, 0.1);
});

test("maps are reached, existing keys first, whatever their punctuation", async () => {
  const { config, problems, warnings } = await validate(
    '[providers.my-local]\napi_base = "http://old"\n[routing.model_map]\n"gpt-4o" = "x"\n',
    {
      env: {
        TOKENMAN_PROVIDERS_ANTHROPIC_API_BASE: "http://new",
        TOKENMAN_PROVIDERS_MY_LOCAL_API_BASE: "http://local",
        TOKENMAN_PROVIDERS_MY_LOCAL_MODELS: "a,b",
        TOKENMAN_PROVIDERS_NEW_ONE_KEY_REF: "env:X",
        TOKENMAN_ROUTING_MODEL_MAP_GPT_4O: "y",
        TOKENMAN_SECURITY_RATE_LIMIT_PROVIDER_LIMITS_OPENAI: "2.5",
        TOKENMAN_SECURITY_RATE_LIMIT_PROVIDER_LIMITS_MISTRAL_BURST: "4",
        TOKENMAN_PLUGINS_CONFIGS_FOO_SOME_URL: "http://foo",
        TOKENMAN_PLUGINS_CONFIGS_FOO_ENABLED: "off",
      },
      sections: [...builtSections, thirdParty("foo", z.strictObject({ some_url: z.string() }))],
    },
  );
  assert.deepEqual(problems, []);
  assert.deepEqual(warnings, []);
  const providers = config.section("providers") as Record<
    string,
    { api_base?: string; models: string[]; key_ref?: string }
  >;
  assert.deepEqual(Object.keys(providers).sort(), ["anthropic", "my-local", "new_one"]);
  assert.equal(providers["anthropic"]!.api_base, "http://new");
  assert.equal(providers["my-local"]!.api_base, "http://local");
  assert.deepEqual(providers["my-local"]!.models, ["a", "b"]);
  assert.deepEqual((config.section("routing") as { model_map: unknown }).model_map, { "gpt-4o": "y" });
  assert.deepEqual((config.section("security.rate_limit") as { provider_limits: unknown }).provider_limits, {
    openai: 2.5,
    mistral: { burst: 4 },
  });
  assert.deepEqual(config.section("plugins.configs.foo"), { some_url: "http://foo" });
  assert.equal(config.enabled("plugins.configs.foo"), false);
});

test("a table can be given as JSON, and one of its keys beside it", async () => {
  const { config, problems } = await validate("", {
    env: {
      TOKENMAN_ROUTING_MODEL_MAP: '{"gpt-*": "openai", "constructor": "z"}',
      TOKENMAN_PROVIDERS: '{"a": {"api_base": "http://a"}}',
      TOKENMAN_PROVIDERS_A_PRIORITY: "3",
    },
  });
  assert.deepEqual(problems, []);
  const { model_map } = config.section("routing") as { model_map: Record<string, string> };
  assert.deepEqual(Object.entries(model_map), [
    ["gpt-*", "openai"],
    ["constructor", "z"],
  ]);
  const { a } = config.section("providers") as { a: { api_base: string; priority: number } };
  assert.deepEqual([a.api_base, a.priority], ["http://a", 3]);
});

test("a project's overlay can be given, existing names first", async () => {
  const { config, problems } = await validate("[projects.my-app]\n", {
    env: {
      TOKENMAN_PROJECTS_MY_APP_SECURITY_PII_ACTION: "block",
      TOKENMAN_PROJECTS_OTHER_DISABLE: "cache, pii",
    },
  });
  assert.deepEqual(problems, []);
  assert.deepEqual(config.projects, ["my-app", "other"]);
  assert.equal((config.section("security.pii", "my-app") as { action: string }).action, "block");
  assert.deepEqual([...config.disabled("other")], ["cache", "pii"]);
});

test("a value that cannot be converted or is refused is named by its variable, and never shown", async () => {
  const secret = "s3cret-canary";
  const validation = await validate("[server]\nproxy_port = 1\n", {
    env: {
      TOKENMAN_SERVER_PROXY_PORT: secret,
      TOKENMAN_SERVER_DASHBOARD_PORT: "70000",
      TOKENMAN_SERVER_STORE_BODY: "",
      TOKENMAN_SERVER_LOG_LEVEL: secret,
      TOKENMAN_SERVER_BIND_ADDRESS: `${secret}/x`,
      TOKENMAN_AUTH_TOKEN: `${secret} x`,
      TOKENMAN_PROVIDERS_A_KEY_REF: secret,
      TOKENMAN_ROUTING_MODEL_MAP: `{"${secret}"`,
      TOKENMAN_PROVIDERS_B: '{"nme": "x"}',
      [`TOKENMAN_UNKNOWN`]: secret,
    },
  });
  assert.deepEqual(summaries(validation), [
    "TOKENMAN_PROVIDERS_B TM_CONFIG_UNKNOWN_KEY providers.b.nme: unknown key, did you mean name?",
    "TOKENMAN_SERVER_BIND_ADDRESS TM_CONFIG_INVALID server.bind_address: expected an IP address or a host name, without a port, found other text",
    "TOKENMAN_SERVER_DASHBOARD_PORT TM_CONFIG_INVALID server.dashboard_port: expected an integer from 0 to 65535, found 70000",
    'TOKENMAN_SERVER_LOG_LEVEL TM_CONFIG_INVALID server.log_level: expected one of "trace", "debug", "info", "warn", "error", "fatal", "silent", found other text',
    "TOKENMAN_AUTH_TOKEN TM_CONFIG_INVALID auth.token: expected visible ASCII characters without spaces, found other text",
    "TOKENMAN_PROVIDERS_A_KEY_REF TM_CONFIG_INVALID providers.a.key_ref: expected a reference such as env:NAME, found other text",
    "TOKENMAN_ROUTING_MODEL_MAP TM_CONFIG_INVALID routing.model_map: expected a table, found text that is not",
    "TOKENMAN_SERVER_PROXY_PORT TM_CONFIG_INVALID server.proxy_port: expected an integer from 0 to 65535, found text that is not",
    "TOKENMAN_SERVER_STORE_BODY TM_CONFIG_INVALID server.store_body: expected true or false, found nothing",
  ]);
  assert.doesNotMatch(
    JSON.stringify([validation.problems.map((problem) => problem.describe()), validation.warnings]),
    /canary/,
  );
});

test("the checks of the core name the variable that caused them", async () => {
  assert.deepEqual(summaries(await validate("", { env: { TOKENMAN_SERVER_BIND_ADDRESS: "0.0.0.0" } })), [
    'TOKENMAN_SERVER_BIND_ADDRESS TM_CONFIG_OPEN_BIND server.bind_address: "0.0.0.0" can be reached from other machines; ' +
      "expected a loopback address, auth.enabled = true with a token, or server.allow_open_bind = true",
  ]);
  const withToken = {
    TOKENMAN_SERVER_BIND_ADDRESS: "0.0.0.0",
    TOKENMAN_AUTH_ENABLED: "on",
    TOKENMAN_AUTH_TOKEN: "t",
  };
  assert.deepEqual(summaries(await validate("", { env: withToken })), []);
});

test("an unknown variable only warns; reserved ones and those the file refers to do not", async () => {
  const { problems, warnings } = await validate('[providers.a]\nkey_ref = "env:TOKENMAN_MY_OWN"\n', {
    env: {
      TOKENMAN_CONFIG: "/x",
      TOKENMAN_KEY_ANTHROPIC: "k",
      TOKENMAN_MY_OWN: "k",
      TOKENMAN_KNOWN_ELSEWHERE: "1",
      TOKENMAN_SERVER_PROXY_PRT: "1",
      TOKENMAN_: "1",
      TOKENMAN_SERVER__PROXY_PORT: "1",
    },
    validate: { isKnownVariable: (variable) => variable === "TOKENMAN_KNOWN_ELSEWHERE" },
  });
  assert.deepEqual(problems, []);
  assert.deepEqual(warnings, [
    "the environment variable TOKENMAN_ names no setting and is ignored",
    "the environment variable TOKENMAN_SERVER_PROXY_PRT names no setting and is ignored (did you mean TOKENMAN_SERVER_PROXY_PORT?)",
    "the environment variable TOKENMAN_SERVER__PROXY_PORT names no setting and is ignored (did you mean TOKENMAN_SERVER_PROXY_PORT?)",
  ]);
});

test("hostile variables do no harm", async () => {
  const validation = await validate("server = 3\n", {
    env: {
      TOKENMAN_SERVER_PROXY_PORT: "1",
      TOKENMAN_PROVIDERS: '{"__proto__": {"name": "x"}, "a": {"__proto__": {"name": "y"}}}',
      TOKENMAN_ROUTING_MODEL_MAP___PROTO__: "x",
      TOKENMAN_PROVIDERS___PROTO___NAME: "x",
      TOKENMAN_TRACING: `${"[".repeat(5000)}${"]".repeat(5000)}`,
      TOKENMAN_DASHBOARD: `{"a":${"[".repeat(5000)}${"]".repeat(5000)}}`,
      [`TOKENMAN_PROVIDERS_${"A_".repeat(500)}NAME`]: "x",
    },
  });
  assert.equal(({} as Record<string, unknown>)["name"], undefined);
  const codes = validation.problems.map(({ code, place }) => `${code} ${place?.line ?? place?.file}`);
  assert.ok(codes.includes("TM_CONFIG_INVALID 1"), "server = 3 is named at its place");
  assert.ok(codes.includes("TM_CONFIG_UNKNOWN_KEY TOKENMAN_PROVIDERS"));
  assert.ok(codes.includes("TM_CONFIG_INVALID TOKENMAN_TRACING"));
  assert.ok(codes.includes("TM_CONFIG_INVALID TOKENMAN_DASHBOARD"));
  assert.equal(validation.config.server.proxy_port, 7677);
});
