import assert from "node:assert/strict";
import { test } from "node:test";
import { openingOf, parseIndex } from "@tokenman/plugin-sdk";

function opening(body: unknown): string {
  const root = parseIndex(Buffer.from(typeof body === "string" ? body : JSON.stringify(body)));
  return openingOf(root.get("system"), root.get("messages"));
}

const hello = { role: "user", content: "Hello" };

test("a conversation begins the same at each of its turns, and another one does not", () => {
  const first = opening({ system: "Be brief.", messages: [hello] });
  const later = opening({
    system: "Be brief.",
    messages: [hello, { role: "assistant", content: "Hi" }, { role: "user", content: "Bye" }],
  });
  assert.equal(later, first);
  assert.notEqual(opening({ system: "Be brief.", messages: [{ role: "user", content: "Hallo" }] }), first);
  assert.notEqual(opening({ system: "Be long.", messages: [hello] }), first);
});

test("marks of the prompt cache, which move on with each turn, do not count", () => {
  const turn = (mark: object) => ({
    system: [{ type: "text", text: "Be brief.", ...mark }],
    messages: [{ role: "user", content: [{ type: "text", text: "Hello", ...mark }] }],
  });
  assert.equal(opening(turn({ cache_control: { type: "ephemeral" } })), opening(turn({})));
});

test("messages before the first user's count with it, those after it are not even looked at", () => {
  const developer = { role: "developer", content: "Be brief." };
  assert.equal(opening({ messages: [developer, hello] }), '"Be brief."\n"Hello"');
  const list = parseIndex(Buffer.from(JSON.stringify([hello, hello, hello]))).each();
  assert.equal(list.next().value?.get("content")?.text(), "Hello");
  list.return();
});

test("of a long text the beginning counts", () => {
  const long = "a".repeat(100_000);
  assert.equal(opening({ messages: [{ role: "user", content: long }] }).length, 4096);
});

test("what has no text begins with nothing", () => {
  for (const body of [{}, { messages: [] }, { messages: [{}] }, { messages: [1, null, "x"] }, "[]"])
    assert.ok(opening(body) === "" || opening(body) === '"x"', JSON.stringify(body));
});
