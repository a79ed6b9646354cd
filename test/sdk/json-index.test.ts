import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type JsonNode,
  JsonSyntaxError,
  parseIndex,
  skipValue,
  topLevel,
} from "../../plugin-sdk/src/json-index.ts";
import { randomJson } from "./json-random.ts";
import { Random } from "./random.ts";

const index = (text: string) => parseIndex(Buffer.from(text));

test("a document is read by path, by key and by position", () => {
  const root = index(' {"a": [1, {"b": "x\\ny"}, null], "a/b~": true, "": {"0": false}} ');
  assert.equal(root.kind, "object");
  assert.deepEqual([root.start, root.end], [1, 64]);
  assert.equal(root.find(""), root);
  assert.equal(root.find("/a/1/b")!.text(), "x\ny");
  assert.equal(root.find("/a/1/b")!.raw(), '"x\\ny"');
  assert.equal(root.find("/a~1b~0")!.kind, "true");
  assert.equal(root.find("//0")!.kind, "false");
  assert.equal(root.get("a")!.at(2)!.kind, "null");
  assert.deepEqual(root.get("a")!.value(), [1, { b: "x\ny" }, null]);
  assert.deepEqual(
    root.entries().map(({ key }) => key),
    ["a", "a/b~", ""],
  );
  assert.deepEqual(
    root
      .get("a")!
      .items()
      .map(({ kind }) => kind),
    ["number", "object", "null"],
  );
  for (const pointer of ["/b", "/a/3", "/a/-", "/a/01", "/a/1/b/0", "/a/0/x", "/a/1e0"]) {
    assert.equal(root.find(pointer), undefined, pointer);
  }
  for (const pointer of ["a", "/~", "/~2"]) assert.throws(() => root.find(pointer), RangeError, pointer);
});

test("nodes are made once", () => {
  const root = index('{"a":[{}]}');
  assert.equal(root.find("/a/0"), root.find("/a/0"));
});

test("values of one kind do not pretend to be of another", () => {
  const root = index('[1,"x"]');
  assert.deepEqual(root.entries(), []);
  assert.deepEqual(root.at(0)!.items(), []);
  assert.equal(root.get("0"), undefined);
  assert.throws(() => root.text(), TypeError);
  assert.equal(root.at(1)!.value(), "x");
});

test("keys are compared decoded, and the last duplicate counts", () => {
  const text = '{"\\u006dodel":"a","model":"b","__proto__":{"x":1},"constructor":2,"mode\\u006c":"c"}';
  const root = index(text);
  assert.equal(root.get("model")!.text(), "c");
  assert.equal(root.entries().filter((member) => member.key === "model").length, 3);
  assert.deepEqual(root.get("__proto__")!.value(), { x: 1 });
  assert.equal(root.get("toString"), undefined);
  const found = topLevel(Buffer.from(text), new Set(["model", "__proto__", "toString"]));
  assert.deepEqual([...found.keys()], ["model", "__proto__"]);
  assert.equal(found.get("model")!.text(), "c");
  assert.equal(found.get("__proto__")!.get("x")!.raw(), "1");
});

test("source text stays within reach: number spelling, big integers, escapes, lone surrogates", () => {
  const root = index('[1.0, 12345678901234567890, -0.0e+10, "\\ud800", "\\/"]');
  assert.deepEqual(
    root.items().map((node) => node.raw()),
    ["1.0", "12345678901234567890", "-0.0e+10", '"\\ud800"', '"\\/"'],
  );
  assert.equal(root.at(3)!.text(), "\ud800");
  assert.equal(root.at(4)!.text(), "/");
});

test("bytes that are not UTF-8 do no harm", () => {
  const buf = Buffer.concat([
    Buffer.from('{"a'),
    Buffer.of(0xff, 0xc3),
    Buffer.from('":"x'),
    Buffer.of(0xe2, 0x82),
    Buffer.from('"}'),
  ]);
  const root = parseIndex(buf);
  assert.deepEqual(root.value(), JSON.parse(buf.toString()));
  assert.equal(root.get("a\ufffd\ufffd")!.text(), "x\ufffd");
});

test("a byte order mark and white space around the document are no error", () => {
  const buf = Buffer.from('\uFEFF \r\n\t{"a":1} \n');
  assert.equal(parseIndex(buf).raw(), '{"a":1}');
  assert.equal(
    topLevel(buf, new Set(["a"]))
      .get("a")!
      .raw(),
    "1",
  );
  assert.equal(topLevel(Buffer.from(' [{"a":1}]'), new Set(["a"])).size, 0);
  assert.equal(topLevel(Buffer.from("{ }"), new Set(["a"])).size, 0);
});

test("what is not JSON is refused with the offset where it goes wrong", () => {
  const cases: [string, number][] = [
    ["", 0],
    [" ", 1],
    ["{", 1],
    ["[1", 2],
    ["[1,]", 3],
    ["[,1]", 1],
    ['{"a"}', 4],
    ['{"a":}', 5],
    ['{"a":1,}', 7],
    ["{a:1}", 1],
    ["[1}", 2],
    ['{"a":1]', 6],
    ["[1 2]", 3],
    ["1 2", 2],
    ["{}}", 2],
    ["tru", 3],
    ["nulL", 3],
    ["01", 1],
    ["-", 1],
    ["1.", 2],
    ["1e", 2],
    ["+1", 0],
    ["'a'", 0],
    ['"abc', 4],
    ['"abc\\"', 6],
    ['"\\', 2],
    ['{"a', 3],
    ["\u00a01", 0],
  ];
  for (const [text, offset] of cases) {
    const buf = Buffer.from(text);
    assert.throws(() => JSON.parse(text), SyntaxError, text);
    for (const read of [parseIndex, (buf: Buffer) => topLevel(buf, new Set(["a"]))]) {
      assert.throws(
        () => read(buf),
        (error) => error instanceof JsonSyntaxError && error.offset === offset,
        `${text}: expected offset ${offset}`,
      );
    }
  }
  assert.throws(() => index("[1;"), /expected ',' or '\]', found ';' at byte 2/);
});

test("a string is checked when it is read", () => {
  const root = index('["\\x", {"\\u12": 1}, "ok"]');
  assert.throws(() => root.at(0)!.text(), JsonSyntaxError);
  assert.throws(() => root.at(1)!.get("abcd"), JsonSyntaxError);
  assert.throws(() => root.value(), JsonSyntaxError);
  assert.equal(root.at(2)!.text(), "ok");
});

test("strings end at the first quote that is not escaped, wherever it stands", () => {
  for (let length = 0; length < 80; length++) {
    for (const tail of ["", "\\\\", '\\"', '\\\\\\"', "\\\\\\\\", '"'.repeat(3), '\\"\\\\'.repeat(9)]) {
      const value = "x".repeat(length) + tail;
      for (const text of [value, value + value]) {
        const literal = JSON.stringify(text);
        assert.equal(skipValue(Buffer.from(`${literal},"more"`), 0), Buffer.byteLength(literal));
      }
    }
  }
});

test("nesting is bounded by memory, not by the call stack", () => {
  const depth = 200_000;
  const arrays = Buffer.from("[".repeat(depth) + "]".repeat(depth));
  assert.equal(skipValue(arrays, 0), 2 * depth);
  let node: JsonNode | undefined = parseIndex(arrays);
  let seen = 0;
  for (; node !== undefined; node = node.at(0)) seen++;
  assert.equal(seen, depth);
  const objects = Buffer.from(`${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`);
  assert.equal(topLevel(objects, new Set(["a"])).get("a")!.end, objects.length - 1);
  assert.equal(parseIndex(objects).find("/a".repeat(depth))!.raw(), "1");
  assert.throws(() => skipValue(arrays.subarray(0, depth + 5), 0), JsonSyntaxError);
});

/** Checks a node and all under it against the value that JSON.parse gives. */
function assertSame(node: JsonNode, value: unknown): void {
  if (Array.isArray(value)) {
    assert.equal(node.kind, "array");
    assert.equal(node.items().length, value.length);
    for (const [at, item] of value.entries()) assertSame(node.at(at)!, item);
  } else if (typeof value === "object" && value !== null) {
    assert.equal(node.kind, "object");
    assert.deepEqual(new Set(node.entries().map((member) => member.key)), new Set(Object.keys(value)));
    for (const [key, item] of Object.entries(value)) {
      assertSame(node.get(key)!, item);
      assert.equal(node.find(`/${key.replaceAll("~", "~0").replaceAll("/", "~1")}`), node.get(key));
    }
  } else if (typeof value === "string") {
    assert.equal(node.text(), value);
  } else {
    assert.equal(node.kind, typeof value === "number" ? "number" : String(value));
    assert.deepEqual(node.value(), value);
  }
  assert.deepEqual(node.value(), value);
}

test("random documents read as JSON.parse reads them", () => {
  for (let seed = 0; seed < 3000; seed++) {
    const random = new Random(seed);
    const text = randomJson(random);
    const buf = Buffer.from(text);
    const value = JSON.parse(buf.toString()) as unknown;
    try {
      assertSame(parseIndex(buf), value);
      const wanted = new Set(["model", "stream", "", "__proto__", "a/b", 'q"', "é"]);
      const found = topLevel(buf, wanted);
      const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
      const expected = isObject ? Object.entries(value).filter(([key]) => wanted.has(key)) : [];
      assert.deepEqual(new Set(found.keys()), new Set(expected.map(([key]) => key)));
      for (const [key, item] of expected) assertSame(found.get(key)!, item);
    } catch (cause) {
      throw new Error(`seed ${seed}: ${text}`, { cause });
    }
  }
});

test("documents with a random flaw are refused exactly where JSON.parse refuses them", () => {
  const damage = [...'{}[],:"\\ \n019.eE+-tfnulx'];
  let refused = 0;
  for (let seed = 0; seed < 20_000; seed++) {
    const random = new Random(seed);
    const text = random.pick(['{"a":[1,-2.5e+3,{"b":true}],"c":"x\\n"}', '[null,false,"",[],{},{"k":[0]}]']);
    const at = random.below(text.length);
    const flawed =
      text.slice(0, at) + (random.chance(0.7) ? random.pick(damage) : "") + text.slice(at + random.below(3));
    let expected: unknown;
    let isValid = true;
    try {
      expected = JSON.parse(flawed);
    } catch {
      isValid = false;
    }
    const read = () => {
      const value = index(flawed).value();
      topLevel(Buffer.from(flawed), new Set(["a"]));
      return value;
    };
    if (isValid) assert.deepEqual(read(), expected, flawed);
    else {
      refused++;
      // A bare string with a control character is let through: see `decodeString`.
      if (!/^\s*"[^"\\]*"\s*$/.test(flawed)) assert.throws(read, JsonSyntaxError, flawed);
    }
  }
  assert.ok(refused > 5000);
});

test("picked members are those that get gives", () => {
  const wanted = new Set(["content", "role", "é"]);
  for (const text of [
    '{"role":"user","content":"Hello"}',
    ' { "content" : [1, {"role":2}] , "r\\u006fle" : "a" , "role":"b" } ',
    '{"content":{"role":1},"\\u00e9":null,"x":"\\"role\\":1"}',
    "{}",
    "[]",
    '"role"',
  ]) {
    const node = parseIndex(Buffer.from(text));
    const picked = node.pick(wanted);
    for (const name of wanted)
      assert.equal(picked.get(name)?.raw(), node.get(name)?.raw(), `${name} of ${text}`);
  }
});
