import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AnswerKey, AnswerKeys, type Dialect, type Exchange, type Format } from "@tokenman/plugin-sdk";

interface Asked {
  readonly project?: string;
  readonly credential?: string;
  readonly dialect?: Dialect;
  readonly method?: string;
  readonly target?: string;
  readonly headers?: readonly string[];
}
const FORMAT = { name: "f", credentialHeaders: ["x-key"] } as unknown as Format;
const CHAT = { name: "chat" } as Dialect;
const OTHER = { name: "other" } as Dialect;
function exchange(asked: Asked = {}): Exchange {
  const { project = "p", credential = "c", dialect = CHAT, method = "POST", target = "/v1/x" } = asked;
  const headers = ["X-Key", credential, "User-Agent", "u", ...(asked.headers ?? [])];
  const request = { method, target, headers };
  return { project, credentialHash: credential, dialect, format: FORMAT, request } as unknown as Exchange;
}
const SECRET = Buffer.alloc(32, 7);
function newKeys(scope = "s", secret = SECRET): AnswerKeys {
  return new AnswerKeys({ scope: () => scope, secret: () => secret });
}
function keyIn(keys: AnswerKeys, asked: Asked, body: Buffer): AnswerKey {
  return keys.keyOf(keys.variantOf(exchange(asked)), body);
}
const SHORT = Buffer.from('{"model":"m"}');
const LONG = Buffer.alloc(50_000, "long ");

describe("answer keys", () => {
  it("differ in everything that may change the answer, for short bodies and long ones", () => {
    const different: Asked[] = [
      {},
      { project: "q" },
      { credential: "d" },
      { dialect: OTHER },
      { method: "PUT" },
      { target: "/v1/x?beta=true" },
      { target: "/v1/y" },
      { headers: ["anthropic-version", "1"] },
      { headers: ["anthropic-version", "2"] },
      { headers: ["anthropic-beta", "1"] },
      { headers: ["anthropic-beta", "1", "anthropic-beta", "2"] },
      { headers: ["anthropic-beta", "1\n", "Accept", "2"] },
      { headers: ["Cookie", "a=b"] },
      { headers: ["Accept-Encoding", "gzip"] },
      { headers: ["Content-Encoding", "gzip"] },
      { headers: ["X-Key", "second"] },
    ];
    const keys = newKeys();
    for (const body of [Buffer.alloc(0), SHORT, Buffer.alloc(4_096), Buffer.alloc(4_097), LONG]) {
      const made = different.map((asked) => keyIn(keys, asked, body));
      for (const [index, key] of made.entries()) {
        for (const [at, other] of made.entries()) assert.equal(key.equals(other), index === at);
        assert.ok(key.equals(keyIn(keys, different[index]!, Buffer.from(body))), "and else they are equal");
      }
      assert.equal(new Set(made.map(({ id }) => id)).size, made.length);
    }
  });

  it("differ with each byte of the body, wherever it is, and with each byte more", () => {
    const keys = newKeys();
    for (const body of [SHORT, LONG]) {
      const key = keyIn(keys, {}, body);
      for (let at = 0; at < body.length; at += Math.ceil(body.length / 500)) {
        const other = Buffer.from(body);
        other[at]! ^= 1;
        assert.equal(key.equals(keyIn(keys, {}, other)), false, String(at));
      }
      assert.equal(key.equals(keyIn(keys, {}, Buffer.concat([body, Buffer.alloc(1)]))), false);
    }
  });

  it("are told apart where their checksum is the same, and a digest from a body with the same bytes", () => {
    const keys = newKeys();
    const long = keyIn(keys, {}, LONG);
    const forged = keyIn(keys, {}, Buffer.from(long.needle));
    const alike = new AnswerKey(forged.words, forged.isExact, forged.needle, long.hash);
    assert.deepEqual([alike.needle, alike.words], [long.needle, long.words]);
    assert.equal(alike.equals(long), false);
    assert.notEqual(alike.id, long.id);
  });

  it("are the same over restarts, with the same scope and secret only", () => {
    for (const body of [SHORT, LONG]) {
      const { id, hash } = keyIn(newKeys(), {}, body);
      const again = keyIn(newKeys(), {}, body);
      assert.deepEqual([again.id, again.hash], [id, hash]);
      assert.notEqual(keyIn(newKeys("t"), {}, body).id, id);
    }
    assert.notEqual(keyIn(newKeys("s", Buffer.alloc(32, 8)), {}, LONG).id, keyIn(newKeys(), {}, LONG).id);
  });

  it("do not depend on how names are spelled, and on headers that change nothing", () => {
    const keys = newKeys();
    const key = keyIn(keys, { headers: ["anthropic-version", "1"] }, SHORT);
    assert.ok(key.equals(keyIn(keys, { headers: ["Anthropic-Version", "1", "X-Trace", "9"] }, SHORT)));
  });

  it("stay right over more kinds of requests than are remembered", () => {
    const keys = newKeys();
    const made = Array.from({ length: 200 }, (_, index) => keyIn(keys, { project: `p${index}` }, SHORT));
    for (let turn = 0; turn < 2_000; turn++) {
      const index = (turn * 7_919) % 200;
      assert.ok(made[index]!.equals(keyIn(keys, { project: `p${index}` }, SHORT)));
      assert.equal(made[(index + 1) % 200]!.equals(keyIn(keys, { project: `p${index}` }, SHORT)), false);
    }
  });

  it("leave alone what is asked of caches, which each request says for itself", () => {
    const keys = newKeys();
    const plain = keys.variantOf(exchange());
    const refresh = keys.variantOf(exchange({ headers: ["Cache-Control", "no-cache"] }));
    const aged = keys.variantOf(exchange({ headers: ["Cache-Control", "max-age=5, min-fresh=2"] }));
    assert.deepEqual(
      [plain, refresh, aged, keys.variantOf(exchange())].map(({ asked }) => [asked.refresh, asked.maxAgeMs]),
      [
        [false, Number.POSITIVE_INFINITY],
        [true, Number.POSITIVE_INFINITY],
        [false, 5_000],
        [false, Number.POSITIVE_INFINITY],
      ],
    );
    assert.ok(keys.keyOf(plain, SHORT).equals(keys.keyOf(refresh, SHORT)));
    assert.ok(keys.keyOf(plain, LONG).equals(keys.keyOf(aged, LONG)));
  });
});
