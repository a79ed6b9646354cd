import assert from "node:assert/strict";
import { test } from "node:test";
import { DocumentMemo, type JsonNode, JsonSyntaxError, parseIndex, topLevel } from "@tokenman/plugin-sdk";
import { type Outline, outlineOf } from "../../plugin-sdk/src/json-outline.ts";
import { Random } from "./random.ts";

const WANTED: ReadonlySet<string> = new Set(["model", "messages", "system", "tools", "stream", "x"]);

/** What `topLevel` finds, as positions and text. */
function found(text: string, memo?: DocumentMemo): string {
  try {
    const map = topLevel(Buffer.from(text), WANTED, memo);
    const root = parseIndex(Buffer.from(text), memo);
    return JSON.stringify([
      [...map].map(([name, node]) => [name, node.start, node.end, node.raw()]),
      whole(root),
    ]);
  } catch (error) {
    assert.ok(error instanceof JsonSyntaxError);
    return error.message;
  }
}

/** All of a document, by its nodes. */
function whole(node: JsonNode): unknown {
  const at = `${node.start}-${node.end} `;
  if (node.kind === "object")
    return [at, ...node.entries().map((member) => [member.keyStart, member.keyEnd, whole(member.value)])];
  return node.kind === "array" ? [at, ...node.items().map(whole)] : at + node.raw();
}

function small(): DocumentMemo {
  return new DocumentMemo({ documents: 3, bytes: 1_000_000, minBytes: 0 });
}

test("a document is outlined the same with a memo of others and without, whatever was changed in it", () => {
  const random = new Random(7);
  const pick = <T>(list: readonly T[]): T => random.pick(list);
  const texts = ["a", 'say \\"hi\\"', "\\\\", "näïve → ☃", "x".repeat(600), "[{", "}]", "\\u0041"];
  const value = (depth: number): string => {
    switch (random.below(depth > 2 ? 3 : 6)) {
      case 0:
        return pick(["1", "-1.50e3", "true", "null", "12345678901234567890"]);
      case 1:
      case 2:
        return `"${pick(texts)}"`;
      case 3:
        return `{"${pick(texts)}":${value(depth + 1)}, "k":[]}`;
      default: {
        const items = Array.from({ length: random.below(7) }, () => value(depth + 1));
        return `[${items.join(pick([",", " ,\n"]))}]`;
      }
    }
  };
  const member = (): string =>
    `"${pick(["model", "messages", "system", "tools", "stream", "x", "mo\\u0064el", "y"])}"${pick(["", " "])}:${value(0)}`;
  const memo = small();
  let text = "{}";
  for (let round = 0; round < 4_000; round++) {
    const at = random.below(text.length + 1);
    switch (random.below(6)) {
      case 0:
        text = `{${Array.from({ length: random.below(9) }, member).join(",")}}`;
        break;
      case 1: // one more member, in front or behind
        text =
          random.below(2) === 0
            ? text.replace(/^\{(?!\s*\})/, `{${member()},`)
            : text.replace(/\}$/, `,${member()}}`);
        break;
      case 2: // one more element somewhere
        text = text.replace(/\](?=[,}])/, `,${value(1)}]`);
        break;
      case 3: // a few bytes in the middle
        text =
          text.slice(0, at) + pick(["", "1", '"', "]", ",", "\\", " "]) + text.slice(at + random.below(4));
        break;
      default: // a longer text somewhere
        text = text.replace(/"a"/, `"${"b".repeat(random.below(2_000))}"`);
    }
    assert.equal(found(text, memo), found(text), `round ${round}: ${text.slice(0, 2_000)}`);
    if (text.length > 60_000) text = "{}";
  }
});

test("an outline may be taken up at any byte up to which two documents are the same", () => {
  const attempt = (run: () => unknown): unknown => {
    try {
      return run();
    } catch (error) {
      assert.ok(error instanceof JsonSyntaxError);
      return error.message;
    }
  };
  const documents = [
    '{"a":[1,22,{"b":[]}],"c":"d"}',
    '{"a":[1,22,{"b":[]},3],"c":"d"}',
    '{"a":[1,2],"c":"d"}',
    '{"a":[1,],"c":"d"}',
    '{"a":[1 ,22 ],"c":[ ],"e":[]}',
    '{"a":[1 ,22 ],"c":[ 7 ],"e":[]}',
    '{"a":[],"c":[ 7 ],"e":[]}',
    '{"a":[1],"c":[],"c":["x","y"],"e":-1}',
    '{"a":[1],"c":[],"c":["x"],"e":-12}',
    '{"a":[]}',
    '{"a":1}',
    "{}",
    '{"a":{"b":[1,2]},"f":[true,false,null]}',
    '{"a":{"b":[1,2,3]},"f":[true,false,null]}',
  ].map((text) => Buffer.from(text));
  for (const before of documents) {
    const outline = attempt(() => outlineOf(before, 0).outline);
    if (typeof outline === "string") continue;
    const known = { bytes: before, length: before.length, outline: outline as Outline };
    for (const after of documents) {
      const expected = attempt(() => outlineOf(after, 0).outline);
      for (let shared = 0; before.compare(after, 0, shared, 0, shared) === 0; shared++) {
        const found = attempt(() => outlineOf(after, 0, known, shared).outline);
        assert.deepEqual(found, expected, `${before}, ${shared} bytes, ${after}`);
        if (shared === Math.min(before.length, after.length)) break;
      }
    }
  }
});

const long = (name: string, count: number): string =>
  Array.from({ length: count }, (_, index) => `{"${name}":${index},"t":"${"text ".repeat(200)}"}`).join(",");

test("what changed since the turn before is found, in front of the new message, behind it and at the end", () => {
  const memo = small();
  const turn = (count: number, tools: string, end = "}"): string =>
    `{"model":"m","messages":[${long("message", count)}],"system":"${"s".repeat(900)}","tools":[${tools}],"stream":true${end}`;
  const same = (text: string): void => assert.equal(found(text, memo), found(text));
  same(turn(20, long("tool", 20)));
  same(turn(21, long("tool", 20)));
  // The tools were taken over from the turn before, further back; a change in them is still in its right place.
  same(turn(21, `${long("tool", 20)},{"x":1}`, ',"x":2}'));
  same(turn(21, `${long("tool", 18)},${long("stool", 2)}`, ',"x":3}'));
  // One member more in front of them counts for those that are taken over as well.
  same(turn(22, long("tool", 20)));
  const more = turn(22, long("tool", 20)).replace('"system"', '"x":1,"system"');
  same(more);
  same(more.replace('"tool":15', '"fool":15'));
  const next = turn(23, long("tool", 20));
  same(next);
  same(`${next.slice(0, 5_000)}"${next.slice(5_000)}`);
  same(turn(23, `${long("tool", 20)},}`));
  same(turn(23, long("tool", 20), "}}"));
});

test("a text is found in a document exactly where it is, whatever was searched in the turn before", () => {
  const random = new Random(17);
  const memo = small();
  let text = `{"messages":["${"m".repeat(2_000)}"],"x":1}`;
  for (let round = 0; round < 2_000; round++) {
    const at = 14 + random.below(text.length - 30);
    const put = random.pick(["", "n", '","key":', '","ke', 'y":', "long ".repeat(random.below(300))]);
    const taken = random.chance(0.3) ? random.below(text.length - at - 10) : 0;
    text = `${text.slice(0, at)}${put}${text.slice(at + taken)}`;
    if (text.length > 6_000) text = `${text.slice(0, 2_000)}"],"x":1}`;
    const bytes = Buffer.from(text);
    for (const wanted of ['"key"', "mm", "long long"])
      assert.equal(memo.includes(bytes, wanted), text.includes(wanted), `round ${round}: ${wanted}`);
  }
});

test("a conversation of ten thousand messages is listed message by message, a list of as many numbers is not", () => {
  const messages = Array.from({ length: 10_000 }, (_, index) => `{"n":${index}}`).join();
  const memo = small();
  const body = Buffer.from(`{"messages":[${messages}],"x":[${"1,".repeat(9_999)}1]}`);
  const { outline } = outlineOf(body, 0);
  assert.equal(outline.elements.length, 20_000);
  const counts = [outline.members[5], outline.members[11]];
  assert.deepEqual(counts, [20_000, -1]);
  const next = `{"messages":[${messages},{"n":10000}],"x":[1]}`;
  assert.equal(found(body.toString(), memo), found(body.toString()));
  assert.equal(found(next, memo), found(next));
});

test("conversations that take turns keep their places, and the oldest one goes", () => {
  const memo = small();
  const turn = (name: string, count: number): string =>
    `{"x":"${name.repeat(2_000)}","messages":[${Array.from({ length: count }, (_, index) => `"${name} ${index}"`).join(",")}]}`;
  for (let count = 1; count < 60; count++) {
    for (const name of ["a", "b", "c", "d"].slice(0, 2 + (count % 3))) {
      assert.equal(found(turn(name, count), memo), found(turn(name, count)));
    }
  }
});
