import assert from "node:assert/strict";
import { test } from "node:test";
import { TokenmanError, TokenmanErrors } from "@tokenman/plugin-sdk";
import { describeFailure } from "../../cli/failure.ts";
import { createRedactor } from "../../cli/secrets.ts";

test("text that nobody has vetted loses what looks like a credential, and what the environment says is one", () => {
  const redact = createRedactor({
    TOKENMAN_KEY_ANTHROPIC: "canary-value-1",
    MY_SECRET_FILE: "canary-value-2",
    TOKENMAN_AUTH_TOKEN: "canary-value-3",
    HOME: "/home/somebody",
    SHORT_KEY: "abc",
  });
  const secrets = [
    "canary-value-1",
    "canary-value-2",
    "canary-value-3",
    "sk-ant-api03-AbCdEfGhIjKlMnOp",
    "Bearer abcdefghijkl.mnop",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "https://user:hunter22@proxy.example/",
  ];
  for (const secret of secrets) {
    const said = redact(`failed with ${secret} in /home/somebody/abc`);
    assert.match(said, /\[redacted\]/, secret);
    assert.doesNotMatch(said, /canary|sk-ant|abcdefghijkl|eyJzdWIi|hunter22/);
    assert.match(said, /failed with .* in \/home\/somebody\/abc$/);
  }
  assert.equal(redact("sk-8 and max_tokens=5"), "sk-8 and max_tokens=5");
});

test("a failure shows all problems with their places, and a stack only where nobody foresaw it", () => {
  const one = new TokenmanError("TM_CONFIG_INVALID", "expected a number", {
    place: { file: "a.toml", line: 3, column: 9, frame: "> 3 | x = y" },
  });
  assert.deepEqual(describeFailure(one), {
    text: "a.toml:3:9: TM_CONFIG_INVALID expected a number\n> 3 | x = y",
    exit: 78,
  });
  const both = describeFailure(new TokenmanErrors([one, new TokenmanError("TM_GUARD_MISSING")]));
  assert.equal(both.exit, 78);
  assert.match(both.text, /TM_CONFIG_INVALID[\s\S]*TM_GUARD_MISSING[\s\S]*\n2 problems$/);
  const bug = describeFailure(new TypeError("sk-ant-api03-AbCdEfGhIjKlMnOp is not a function"));
  assert.equal(bug.exit, 70);
  assert.match(bug.text, /^TM_INTERNAL TypeError: \[redacted\] is not a function\n {4}at /);
});
