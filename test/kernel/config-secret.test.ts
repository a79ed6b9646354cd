import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "@tokenman/plugin-sdk";
import type { Config } from "../../kernel/config/index.ts";
import { builtSections, raw, thirdParty, validate } from "./config-fixture.ts";

/** The value at a dotted path of what `/api/config` would show. */
function shownAt(config: Config, path: string): unknown {
  return path
    .split(".")
    .reduce<unknown>((value, key) => (value as Record<string, unknown>)[key], config.redacted());
}

const CANARY = "canary-5ecret";

test("the redacted config shows everything but secrets", async () => {
  const schema = z.strictObject({
    password: z.string(),
    pin: z.string().meta({ secret: true }),
    url: z.string(),
    headers: z.record(z.string(), z.string()),
    max_tokens: z.int(),
  });
  const { config, problems } = await validate(
    `[auth]
enabled = true
token = "${CANARY}"
[providers.a]
api_base = "https://ada:${CANARY}@host.example/v1"
key_ref = "env:TOKENMAN_KEY_A"
[providers.b]
key_ref = "keyring://tokenman/b"
[plugins.configs.hook]
password = "${CANARY}"
pin = "${CANARY}"
url = "http://x"
max_tokens = 5
headers = { Authorization = "Bearer ${CANARY}", x-api-key = "${CANARY}", accept = "text/plain" }
[projects.p.plugins.configs.hook]
pin = "${CANARY}2"
[projects.p]
disable = ["cache"]
`,
    { sections: [...builtSections, thirdParty("hook", schema)] },
  );
  assert.deepEqual(problems, []);
  assert.doesNotMatch(JSON.stringify(config.redacted()), /canary/);
  assert.deepEqual(shownAt(config, "auth"), { enabled: true, token: "[redacted]", proxy: false });
  assert.equal(shownAt(config, "providers.a.api_base"), "https://[redacted]@host.example/v1");
  assert.equal(shownAt(config, "providers.a.key_ref"), "env:TOKENMAN_KEY_A");
  assert.equal(shownAt(config, "providers.b.key_ref"), "keyring://tokenman/b");
  assert.deepEqual(shownAt(config, "plugins.configs.hook"), {
    enabled: true,
    password: "[redacted]",
    pin: "[redacted]",
    url: "http://x",
    max_tokens: 5,
    headers: { Authorization: "[redacted]", "x-api-key": "[redacted]", accept: "text/plain" },
  });
  assert.equal(shownAt(config, "server.proxy_port"), 7677);
  assert.equal(shownAt(config, "security.budget.enabled"), false);
  assert.deepEqual(shownAt(config, "projects.p.disable"), ["cache"]);
  assert.equal(shownAt(config, "projects.p.plugins.configs.hook.pin"), "[redacted]");
  const unset = (await validate("")).config;
  assert.equal(shownAt(unset, "auth.token"), "", "that there is no token is no secret");
});

test("no error shows a secret of the file: not the one at fault, not its neighbours", async () => {
  const schema = z.strictObject({
    pin: z.string().min(50).meta({ secret: true }),
    more: z.string().optional(),
  });
  const texts = [
    `[auth]\ntoken = "${CANARY} x"\nenabled = 3\n`,
    `auth = { token = "${CANARY}", enabled = 3 }\n`,
    `[auth]\nenabled = 3\ntoken = """\n${CANARY}\n${CANARY}"""\n`,
    `[auth]\nenabled = 3\n"token" = '${CANARY}'\n`,
    `[providers.a]\nkey_ref = "${CANARY}"\n`,
    `[providers.a]\nkey_ref = "sk-ant-${CANARY}"\ntimeout = "x"\n`,
    `[providers.a]\napi_base = "https://ada:${CANARY}@host"\ntimeout = "x"\n`,
    `[providers.a]\napi_base = "http://h"\napi_key = "${CANARY}"\ntimeout = "x"\n`,
    `[plugins.configs.hook]\npin = "${CANARY}"\n`,
    `[plugins.configs.hook]\nmore = 1\npin = """\n${CANARY}"""\n`,
    `auth.token = ["${CANARY}"]\n`,
    `auth.token.x = "${CANARY}"\n`,
    `[providers.a]\nkey_ref = ["env:A", "${CANARY}"]\n`,
    `[providers.a]\nkey_ref = [\n  "env:A", # a comment ]\n  "${CANARY}",\n  "${CANARY}",\n]\ntimeout = "x"\n`,
    `[providers.a]\ntimeout = "gsk_0123456789${CANARY}"\n`,
    `[providers.a]\ntimeout = "${"x".repeat(48)} sk-ant-api03-${CANARY}0123456789"\n`,
    `[providers.a]\nformat = "https://host.example/v1?k=${CANARY}"\n`,
    `[providers.a]\nkey_rf = "${CANARY}"\n`,
    `[auth]\ntokn = "${CANARY}"\n`,
    `[auht]\ntokn = "${CANARY}"\n`,
    `[plugins.configs.hook]\npinn = "${CANARY}"\n`,
  ];
  for (const text of texts) {
    const { problems, warnings } = await validate(text, {
      sections: [...builtSections, thirdParty("hook", schema, { loaded: false })],
    });
    assert.notEqual(problems.length, 0, text);
    const said = [...problems.map((problem) => `${problem.describe()} ${problem.stack}`), ...warnings].join(
      "\n",
    );
    assert.doesNotMatch(said, /canary/, text);
  }
});

test("an error of a file that does not parse shows no secret either, misspelt or spread over lines", () => {
  for (const text of [
    `[auth]\ntoken = "${CANARY}"\nenabled =\n`,
    `[auth]\ntokn = "${CANARY}"\nenabled =\n`,
    `[providers.a]\nkey_ref = [\n  "${CANARY}",\n]\ntimeout =\n`,
    `[providers.a]\nkey_ref = [\n  "${CANARY}"\ntimeout = 3\n`,
  ]) {
    assert.throws(
      () => raw(text),
      (error: Error) => error.message.includes("TM_CONFIG_SYNTAX") && !error.message.includes(CANARY),
      text,
    );
  }
});

test("text that looks like a vendor's key is hidden wherever it stands; ordinary names are not", async () => {
  const { config } = await validate(
    `[routing.model_map]
a = "sk-ant-REDACTED"
b = "ghp_0123456789abcdef0123"
c = "skeleton-project-name"
d = "ghostwriter-large-2025"
`,
  );
  assert.deepEqual(shownAt(config, "routing.model_map"), {
    a: "[redacted]",
    b: "[redacted]",
    c: "skeleton-project-name",
    d: "ghostwriter-large-2025",
  });
});
