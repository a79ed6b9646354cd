import assert from "node:assert/strict";
import { test } from "node:test";
import { type JsonNode, JsonSyntaxError, parseIndex, topLevel } from "../../plugin-sdk/src/json-index.ts";
import { type JsonEdit, SpliceConflict, spliceJson } from "../../plugin-sdk/src/json-splice.ts";
import { randomJson, randomValue } from "./json-random.ts";
import { Random } from "./random.ts";
import { SpliceModel } from "./splice-model.ts";

function splice(text: string, ...edits: JsonEdit[]): string {
  const buf = Buffer.from(text);
  return spliceJson(buf, parseIndex(buf), edits).toString();
}

const add = (pointer: string, value: unknown): JsonEdit => ({ kind: "patch", op: "add", pointer, value });
const replace = (pointer: string, value: unknown): JsonEdit => ({
  kind: "patch",
  op: "replace",
  pointer,
  value,
});
const remove = (pointer: string): JsonEdit => ({ kind: "patch", op: "remove", pointer });

function assertConflict(text: string, pointer: string, ...edits: JsonEdit[]): void {
  assert.throws(
    () => splice(text, ...edits),
    (error) =>
      error instanceof SpliceConflict && error.pointer === pointer && error.message.includes(pointer),
    `${text} at ${pointer}`,
  );
}

test("a text edit changes one literal and no other byte", () => {
  const text = ' { "n" : 1.0 ,"t":"a\\u0062" , "t2" : "x" } ';
  const buf = Buffer.from(text);
  const root = parseIndex(buf);
  const edit = (key: string, value: string): JsonEdit => ({
    kind: "text",
    node: root.get(key)!,
    text: value,
  });
  assert.equal(
    spliceJson(buf, root, [edit("t", 'q"\n\ud800é')]).toString(),
    ' { "n" : 1.0 ,"t":"q\\"\\n\\ud800é" , "t2" : "x" } ',
  );
  assert.equal(spliceJson(buf, root, [edit("t", "ab")]), buf, "the same text keeps its spelling");
  assert.equal(spliceJson(buf, root, [edit("t", "x"), edit("t", "ab")]), buf);
  assert.equal(spliceJson(buf, root, []), buf);
  const node = topLevel(buf, new Set(["t2"])).get("t2")!;
  assert.equal(
    spliceJson(buf, root, [{ kind: "text", node, text: "y" }]).toString(),
    text.replace('"x"', '"y"'),
    "a node may come from topLevel",
  );
  assert.throws(() => spliceJson(buf, root, [edit("n", "x")]), TypeError);
  assert.throws(() => spliceJson(buf, root.get("t")!, [edit("t2", "x")]), TypeError);
});

test("a text whose literal has a bad escape can be replaced", () => {
  const buf = Buffer.from('{"t":"a\\q","u":1}');
  const edit: JsonEdit = { kind: "text", node: parseIndex(buf).get("t")!, text: "b" };
  assert.equal(spliceJson(buf, parseIndex(buf), [edit]).toString(), '{"t":"b","u":1}');
});

test("replacing touches the value only", () => {
  assert.equal(
    splice('{"a": 1 , "b":[ 2 ]}', replace("/a", { x: null }), replace("/b/0", "y")),
    '{"a": {"x":null} , "b":[ "y" ]}',
  );
  assert.equal(splice("\uFEFF [1] ", replace("", {})), "\uFEFF {} ");
  assert.equal(splice('{"k":1,"k":2}', replace("/k", 3)), '{"k":1,"k":3}');
  assert.equal(
    splice("[1]", { kind: "raw", op: "replace", pointer: "/0", json: " 1.00 " }),
    "[1.00]",
    "raw source keeps its spelling",
  );
});

test("removing takes the comma along", () => {
  const text = '{ "a" : 1 , "b" : 2 ,\n "c" : 3 }';
  assert.equal(splice(text, remove("/a")), '{ "b" : 2 ,\n "c" : 3 }');
  assert.equal(splice(text, remove("/b")), '{ "a" : 1 , "c" : 3 }');
  assert.equal(splice(text, remove("/c")), '{ "a" : 1 , "b" : 2 }');
  assert.equal(splice(text, remove("/b"), remove("/c")), '{ "a" : 1 }');
  assert.equal(splice(text, remove("/c"), remove("/a")), '{ "b" : 2 }');
  assert.equal(splice(text, remove("/a"), remove("/b"), remove("/c")), "{}");
  assert.equal(splice("[ 1 , 2 , 3 ]", remove("/1")), "[ 1 , 3 ]");
  assert.equal(splice('{"k":1,"x":0,"k":2}', remove("/k")), '{"x":0}');
});

test("adding puts new elements where the original's index says, in call order", () => {
  assert.equal(splice("[ 1 , 2 ]", add("/-", 3), add("/2", 4)), "[ 1 , 2,3,4 ]");
  assert.equal(splice("[1,2]", add("/1", "a"), add("/1", "b"), add("/0", "c")), '["c",1,"a","b",2]');
  assert.equal(splice("[ ]", add("/-", 1), add("/0", 2)), "[1,2]");
  assert.equal(splice("[1, 2]", add("/1", "a"), remove("/1")), '[1,"a"]');
  assert.equal(splice("[1,2,3]", remove("/0"), add("/0", "a"), replace("/1", "b")), '["a","b",3]');
  assert.equal(splice("[1]", remove("/0"), add("/-", 2), add("/-", 3)), "[2,3]");
});

test("adding a member appends it, or replaces the value of one that is there", () => {
  assert.equal(splice('{"a":1 }', add("/b", 2), add("/c", 3)), '{"a":1,"b":2,"c":3 }');
  assert.equal(splice("{}", add('/a"~1~0', 1)), '{"a\\"/~":1}');
  assert.equal(splice('{"a":1}', add("/a", 2)), '{"a":2}');
  assert.equal(splice("{}", add("/a", 1), add("/b", 2), add("/a", 3)), '{"a":3,"b":2}');
  assert.equal(splice("{}", add("/a", 1), replace("/a", 2)), '{"a":2}');
  assert.equal(splice('{"x":0}', add("/a", 1), remove("/a")), '{"x":0}');
  assert.equal(splice("{}", add("/__proto__", 1)), '{"__proto__":1}');
});

test("a later edit of the same value wins, and an edit of a value supersedes those inside it", () => {
  assert.equal(splice('{"a":1}', replace("/a", 2), replace("/a", 3)), '{"a":3}');
  assert.equal(splice('{"a":1,"b":2}', remove("/a"), add("/a", 3)), '{"a":3,"b":2}');
  assert.equal(splice('{"a":1,"b":2}', replace("/a", 3), remove("/a")), '{"b":2}');
  const nested = '{"a":{"b":[1,2]},"c":0}';
  assert.equal(
    splice(nested, replace("/a/b/0", 9), remove("/a/b/1"), add("/a/b/-", 3), replace("/a", 7)),
    '{"a":7,"c":0}',
  );
  assert.equal(splice(nested, add("/a/b/-", 3), replace("/c", 1), remove("/a")), '{"c":1}');
});

test("an edit inside what is gone is a conflict", () => {
  const text = '{"a":{"b":["x"]}}';
  assertConflict(text, "/a/b", replace("/a", 1), replace("/a/b", 2));
  assertConflict(text, "/a/c", remove("/a"), add("/a/c", 2));
  assertConflict(text, "/a/b/-", replace("/a/b", []), add("/a/b/-", 2));
  const buf = Buffer.from(text);
  const root = parseIndex(buf);
  const edits: JsonEdit[] = [remove("/a"), { kind: "text", node: root.find("/a/b/0")!, text: "y" }];
  assert.throws(
    () => spliceJson(buf, root, edits),
    (error) => error instanceof SpliceConflict && error.pointer === "/a/b/0",
  );
});

test("an edit of what does not exist is a conflict that names the place", () => {
  const text = '{"a":[1],"s":"x"}';
  assertConflict(text, "/b", replace("/b", 1));
  assertConflict(text, "/b", remove("/b"));
  assertConflict(text, "/b/c", add("/b/c", 1));
  assertConflict(text, "/s/c", add("/s/c", 1));
  assertConflict(text, "/a/2", add("/a/2", 1));
  assertConflict(text, "/a/1", replace("/a/1", 1));
  assertConflict(text, "/a/-", remove("/a/-"));
  assertConflict(text, "/a/x", add("/a/x", 1));
  assertConflict(text, "", remove(""));
});

test("what is no JSON value is refused", () => {
  assert.throws(() => splice("{}", add("/a", undefined)), TypeError);
  assert.throws(() => splice("{}", { kind: "raw", op: "add", pointer: "/a", json: "1,2" }), JsonSyntaxError);
  assert.throws(() => splice("{}", { kind: "raw", op: "add", pointer: "/a", json: "" }), JsonSyntaxError);
  assert.throws(() => splice("{}", add("a", 1)), RangeError);
});

function allNodes(root: JsonNode): { node: JsonNode; pointer: string }[] {
  const nodes = [{ node: root, pointer: "" }];
  for (let at = 0; at < nodes.length; at++) {
    const { node, pointer } = nodes[at]!;
    for (const [index, item] of node.items().entries())
      nodes.push({ node: item, pointer: `${pointer}/${index}` });
    for (const { key, value } of node.entries()) {
      nodes.push({ node: value, pointer: `${pointer}/${key.replaceAll("~", "~0").replaceAll("/", "~1")}` });
    }
  }
  return nodes;
}

function randomEdit(random: Random, nodes: readonly { node: JsonNode; pointer: string }[]): JsonEdit {
  const { node, pointer } = random.pick(nodes);
  const json = randomValue(random, 2);
  const value = JSON.parse(json) as unknown;
  switch (random.below(6)) {
    case 0:
      return node.kind === "string"
        ? { kind: "text", node, text: random.pick(["new", node.text()]) }
        : remove(pointer);
    case 1:
      return remove(pointer);
    case 2:
      return replace(pointer, value);
    case 3:
      return { kind: "raw", op: random.pick(["replace", "add"]), pointer, json };
    default: {
      const token =
        node.kind === "array" ? random.pick(["-", "0", "1", "2"]) : random.pick(["new", "model", "é", "x"]);
      return add(`${pointer}/${token}`, value);
    }
  }
}

test("random edits give the document that a simple model of the rules gives, and spare every other byte", () => {
  let applied = 0;
  let refused = 0;
  for (let seed = 0; seed < 6000; seed++) {
    const random = new Random(seed);
    const buf = Buffer.from(randomJson(random));
    const root = parseIndex(buf);
    const nodes = allNodes(root);
    const model = new SpliceModel(root);
    const edits: JsonEdit[] = [];
    for (let count = random.below(8); count > 0; count--) {
      const edit = randomEdit(random, nodes);
      if (model.apply(edit)) {
        edits.push(edit);
        applied++;
      } else {
        assert.throws(() => spliceJson(buf, root, [...edits, edit]), SpliceConflict, `seed ${seed}`);
        refused++;
      }
    }
    const result = spliceJson(buf, root, edits);
    try {
      JSON.parse(result.toString());
      model.assertMatches(buf, result);
    } catch (cause) {
      const shown = edits.map((edit) =>
        edit.kind === "text" ? { text: edit.text, at: edit.node.start } : edit,
      );
      throw new Error(`seed ${seed}: ${buf} with ${JSON.stringify(shown)} gave ${result}`, { cause });
    }
  }
  assert.ok(applied > 5000 && refused > 1000, `${applied} applied, ${refused} refused`);
});
