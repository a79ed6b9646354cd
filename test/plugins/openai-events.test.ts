import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { SseEvent } from "@tokenman/plugin-sdk";
import { Random } from "@tokenman/plugin-sdk/testkit";
import { mayEndResponses } from "../../plugins/openai/events.ts";
import { quoted, quotedAt } from "../../plugins/openai/quoted.ts";

describe("what most events of a stream are told by", () => {
  test("a quoted word is found where a search of all bytes finds it", () => {
    const random = new Random(7);
    const word = quoted("usage");
    const pieces = ['"', '"u', '"usage"', "usage", '"usag', '"usage":null', "\\", "x", "ü", "\n"];
    for (let round = 0; round < 3_000; round++) {
      let text = "";
      for (let left = random.below(12); left > 0; left--) text += pieces[random.below(pieces.length)];
      // Beyond the bound, too.
      if (round % 10 === 0) text = "y".repeat(600) + text;
      const raw = Buffer.from(text);
      const from = random.below(4);
      assert.equal(quotedAt(raw, word, from), raw.indexOf(word, from), JSON.stringify([text, from]));
    }
  });

  test("the end of a Responses stream is told by its name, however that is spelled", () => {
    const ends = ["response.completed", "response.failed", "response.incomplete", "error"];
    const others = [
      "response.created",
      "response.in_progress",
      "response.output_text.delta",
      "response.content_part.added",
      "response.function_call_arguments.delta",
      "response.completed_later",
      "response",
      "response.",
      "ping",
      "r",
    ];
    const may = (block: string): boolean => mayEndResponses(new SseEvent(Buffer.from(block)));
    for (const space of ["", " "]) {
      for (const name of ends) assert.equal(may(`event:${space}${name}\ndata: {}\n\n`), true, name);
      for (const name of others) assert.equal(may(`event:${space}${name}\ndata: {}\n\n`), false, name);
    }
    // Those that do not begin with their name may be anything.
    for (const block of ["data: {}\n\n", ": ping\n\n", "id: 1\nevent: response.completed\n\n", "\n"])
      assert.equal(may(block), true, block);
  });
});
