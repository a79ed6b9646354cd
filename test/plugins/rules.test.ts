import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { assertBytesEqual, type PluginRun, Random, toolResults } from "@tokenman/plugin-sdk/testkit";
import { minifyJson } from "../../plugins/rules/json-text.ts";
import { looksLikeCode, looksLikeFile, quotesFile } from "../../plugins/rules/looks.ts";
import { collapseWhitespace, referToInstructions, stripMarkdown } from "../../plugins/rules/prose.ts";
import { withoutAnsi, withoutProgress, withRunsCounted } from "../../plugins/rules/terminal.ts";
import { minifyXml } from "../../plugins/rules/xml-text.ts";
import { OPENAI_KEY } from "../support/client-heads.ts";
import "../support/kernel.ts";
import {
  ALL,
  anthropic,
  assistant,
  called,
  DENSE,
  SPACED,
  sent,
  start,
  user,
} from "../support/rules-world.ts";

/** Sends a conversation as its client would: each turn of the user's once it is there. Gives the last request. */
async function grown(run: PluginRun, messages: readonly object[]): Promise<Buffer> {
  let last: Buffer | undefined;
  for (const [index, message] of messages.entries())
    if ((message as { role: string }).role === "user")
      last = await sent(run, anthropic(messages.slice(0, index + 1)));
  return last!;
}

describe("minify_json", () => {
  it("takes white space out of texts that are nothing but JSON, and leaves all else as it is written", async () => {
    await using run = await start();
    const messages = [
      user(SPACED, `see ${SPACED}`, `${SPACED} and more`, "[ not json", '"  a string  "'),
      assistant(SPACED),
      user("go on"),
    ];
    const body = anthropic(messages, {
      system: SPACED,
      tools: [{ name: "t", description: SPACED, input_schema: {} }],
    });
    const expected = anthropic(
      [
        user(DENSE, `see ${SPACED}`, `${SPACED} and more`, "[ not json", '"  a string  "'),
        assistant(SPACED),
        user("go on"),
      ],
      { system: DENSE, tools: [{ name: "t", description: SPACED, input_schema: {} }] },
    );
    // A conversation that is under way keeps what was sent: first its beginning.
    await sent(run, { ...body, messages: messages.slice(0, 1) });
    assertBytesEqual(await sent(run, body), JSON.stringify(expected));
  });

  it("works in every dialect, on strings and on parts", async () => {
    await using run = await start();
    const chat = {
      model: "m",
      messages: [
        { role: "system", content: SPACED },
        { role: "user", content: [{ type: "text", text: SPACED }] },
      ],
    };
    assert.equal(
      String(await sent(run, chat, OPENAI_KEY, "/v1/chat/completions")),
      JSON.stringify(chat).replaceAll(JSON.stringify(SPACED), JSON.stringify(DENSE)),
    );
    const responses = {
      model: "m",
      instructions: SPACED,
      input: [{ role: "user", content: [{ type: "input_text", text: SPACED }] }],
    };
    assert.equal(
      String(await sent(run, responses, OPENAI_KEY, "/v1/responses")),
      JSON.stringify(responses).replaceAll(JSON.stringify(SPACED), JSON.stringify(DENSE)),
    );
  });

  it("leaves tool results alone, and the arguments of calls", async () => {
    await using run = await start();
    const body = anthropic([user("go"), ...called("a", "search", SPACED), assistant("ok"), user("on")]);
    assertBytesEqual(await sent(run, body), JSON.stringify(body));
    const call = { id: "c", type: "function", function: { name: "f", arguments: SPACED } };
    const chat = {
      model: "m",
      messages: [
        { role: "user", content: "x" },
        { role: "assistant", tool_calls: [call] },
        { role: "tool", tool_call_id: "c", content: SPACED },
      ],
    };
    assertBytesEqual(await sent(run, chat, OPENAI_KEY, "/v1/chat/completions"), JSON.stringify(chat));
  });

  it("keeps the value, whatever JSON it is", () => {
    const random = new Random(9);
    const space = () => random.pick(["", " ", "\n", "\t ", "\r\n  "]);
    const value = (depth: number): string => {
      const kind = random.below(depth > 3 ? 3 : 5);
      if (kind === 0) return random.pick(["1.0", "-0", "1e400", "12345678901234567890", "true", "null"]);
      if (kind < 3)
        return random.pick(['""', '" a  b "', '"\\\\"', '"\\" : "', '"\\ud800"', '"{ [ , ] }"', '"é\\n"']);
      const items = Array.from({ length: random.below(4) }, () => value(depth + 1));
      if (kind === 3) return `[${space()}${items.join(`${space()},${space()}`)}${space()}]`;
      return `{${space()}${items.map((item) => `"k ${random.below(2)}"${space()}:${space()}${item}`).join(`${space()},${space()}`)}${space()}}`;
    };
    for (let round = 0; round < 2_000; round++) {
      const text = `[${space()}${value(0)}${space()}]${space()}`;
      const dense = minifyJson(text);
      assert.deepEqual(JSON.parse(dense), JSON.parse(text));
      assert.equal(minifyJson(dense), dense);
      assert.deepEqual(
        dense.match(/"(?:[^"\\]|\\.)*"|[-\d.e]+/g),
        text.match(/"(?:[^"\\]|\\.)*"|[-\d.e]+/g),
        text,
      );
    }
    for (const odd of ["", "{", "{]", "[1,]", "{'a': 1}", "[1] x", "{}{}", " [ 1 ]"])
      assert.equal(minifyJson(odd), odd);
  });
});

describe("the other rules", () => {
  it("collapse white space, but for what is indented, in fences or in code", () => {
    const text =
      "a  b\t\tc   \n\n\n\n  - two  words `x   y`  end\n    code   here\n```\nkept   as  is\n\n\n\n```\n\tcode   too\n";
    assert.equal(
      collapseWhitespace(text),
      "a b c\n\n  - two words `x   y` end\n    code   here\n```\nkept   as  is\n\n\n\n```\n\tcode   too\n",
    );
    const long = `word  ${"x".repeat(3_000)}  end`;
    assert.equal(collapseWhitespace(long), long);
  });

  it("strip Markdown that only decorates", () => {
    const text =
      "# Title #\n**bold** and __strong__ and *one* a_b_c `**x**`\n* * *\n- item\n[a](b)\n```\n# not **this**\n```\n---\n| a | b |";
    assert.equal(
      stripMarkdown(text),
      "Title\nbold and strong and *one* a_b_c `**x**`\n- item\n[a](b)\n```\n# not **this**\n```\n---\n| a | b |",
    );
  });

  it("minify XML that is well-formed and holds no files", () => {
    assert.equal(
      minifyXml('<a x="1 > 0">\n  <b>one  two</b>\n  <c/> <d></d>\n</a>\n'),
      '<a x="1 > 0"><b>one  two</b><c/> <d></d></a>',
    );
    assert.equal(
      minifyXml("<a>\n  <file>\n  <x>\n </x> </file>\n</a>"),
      "<a><file>\n  <x>\n </x> </file></a>",
    );
    for (const odd of [
      "<a>\n <b></a>",
      "<a>\n</a> x",
      "<a>\n</a><b>\n</b>",
      "x <a>\n</a>",
      "<a",
      "<!-- x",
      '<a xml:space="preserve">\n <b/>\n</a>',
      "< a >\n</a>",
      `<${"a".repeat(50_000)}`,
      `<a ${'"'.repeat(50_001)}>`,
    ])
      assert.equal(minifyXml(odd), odd);
  });

  it("refer to instructions that the system prompt has", () => {
    const rule = `Always ${"be careful with what you do and ".repeat(8)}stop.`;
    assert.equal(
      referToInstructions(`Hello.\n\n${rule}\n\nDo it.`, new Set([rule])),
      'Hello.\n\n[As instructed before: "Always be careful with what you do and b…"]\n\nDo it.',
    );
    assert.equal(referToInstructions(rule, new Set()), rule);
  });

  it("clean what a terminal shows", () => {
    assert.equal(
      withoutAnsi("\u001b[1;32mok\u001b[0m \u001b]8;;http://x\u0007link\u001b]8;;\u0007"),
      "ok link",
    );
    assert.equal(withoutProgress("get  1%\rget 50%\rget 100%\nnext\r\n"), "get 100%\nnext\r\n");
    assert.equal(
      withRunsCounted(`a\n${"warning: same\n".repeat(9)}b\n\n\n\n\n`),
      "a\nwarning: same\n[8 more lines like this one]\nb\n\n\n\n\n",
    );
  });

  it("know what looks like a file", () => {
    for (const code of [
      "import { a } from 'b';\nconst x = 1;\n",
      "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b",
      "     1→one\n     2→two\n",
    ])
      assert.equal(looksLikeCode(code), true, code);
    assert.equal(looksLikeCode("warning: one\nerror: two\n"), false);
    for (const file of [
      "import { a } from 'b';\nconst x = 1;\n",
      "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b",
      "     1→one\n     2→two\n",
      "{ }",
      "<html>",
      "name: x\nversion: 1\n",
      "text\n```\ncode\n```\n",
      "def f(x):\n    return x\n\nclass A:\n    pass\n",
    ])
      assert.equal(looksLikeFile(file), true, file);
    for (const output of ["12 tests passed", "Downloading the package\nDone in 3 seconds\n", ""])
      assert.equal(looksLikeFile(output), false, output);
    assert.equal(quotesFile("Important: read this\nNote: and that\n* one\n* two"), false);
    assert.equal(quotesFile("Look at it:\nconst x = 1;\nfunction y() {\n}\n"), true);
    assert.equal(quotesFile("Look at it:\n```\nconst x = 1;\nfunction y() {\n}\n```\n"), false);
  });
});

describe("tool results", () => {
  const log = Array.from({ length: 30 }, (_, index) => `step ${index} of the build is done\n`).join("");
  const noisy = `\u001b[31mstart\u001b[0m\n${"warning: the same again\n".repeat(12)}10%\r50%\r100% done\n`;

  it("are cleaned and referred to only where that is asked for", async () => {
    const body = anthropic([user("go"), ...called("a", "bash", noisy)]);
    {
      await using run = await start();
      assertBytesEqual(await sent(run, body), JSON.stringify(body));
    }
    await using run = await start({ tool_output: true });
    await sent(run, anthropic([user("go")]));
    const first = await sent(run, body);
    assert.equal(
      toolResults("anthropic-messages", first).get("a"),
      "start\nwarning: the same again\n[11 more lines like this one]\n100% done\n",
    );
    const blob = `got ${"QUJD".repeat(200)} end`;
    const messages = [
      user("go"),
      ...called("a", "bash", log),
      ...called("b", "bash", log),
      ...called("c", "fetch", blob),
      ...called("d", "fetch", `again ${blob}`),
    ];
    const results = toolResults("anthropic-messages", await grown(run, messages));
    assert.equal(results.get("b"), "[The same output as before, in the result of a]");
    assert.equal(results.get("c"), blob);
    assert.equal(results.get("d"), "again got [the same base64 data as before, in the result of c] end");
  });

  it("that are code, diffs or files stay to the byte under all rules", async () => {
    await using run = await start(ALL);
    const files: [string, string][] = [
      ["read", `one   two\n\n\n\n${"same line again\n".repeat(20)}`],
      ["Read", "     1→a   b\n     2→a   b\n     3→a   b\n     4→a   b\n"],
      ["bash", `import x from "y";\n\n\n\nconst a  =  1;\n${"console.log(1);\n".repeat(9)}`],
      [
        "bash",
        `\u001b[1mdiff --git a/x b/x\u001b[0m\n--- a/x\n+++ b/x\n@@ -1,9 +1,9 @@\n${"-same line here\n".repeat(9)}`,
      ],
      ["bash", SPACED],
      ["str_replace_based_edit_tool", `plain words that repeat\n`.repeat(30)],
      ["cat", "<a>\n  <b/>\n</a>"],
      ["shell", "<a>\n  <b/>\n</a>"],
      [
        "bash",
        `key: value\nother:   1\n${Array.from({ length: 40 }, (_, line) => `entry${line}: x`).join("\n")}`,
      ],
    ];
    const messages: object[] = [user("go")];
    await sent(run, anthropic(messages));
    for (const [index, [tool, text]] of files.entries())
      messages.push(...called(`x${index}`, tool, text), ...called(`y${index}`, tool, text));
    const results = toolResults("anthropic-messages", await grown(run, messages));
    for (const [index, [, text]] of files.entries())
      for (const id of [`x${index}`, `y${index}`])
        assert.equal(results.get(id), text, `${id} ${text.slice(0, 40)}`);
  });

  it("that a cut took away are not referred to", async () => {
    const { definePlugin } = await import("@tokenman/plugin-sdk");
    const { recordingUpstream, providersAt } = await import("@tokenman/plugin-sdk/testkit");
    const { startTokenman } = await import("../support/kernel.ts");
    let cuts = false;
    const cut = definePlugin({
      name: "cut",
      version: "1.0.0",
      apiVersion: 1,
      stage: "shape",
      setup: (ctx) =>
        ctx.pipeline((_config, hooks) =>
          hooks.request.tap((exchange) => {
            if (cuts) exchange.patch([1, 2].map((at) => ({ op: "remove", pointer: `/messages/${at}` })));
          }),
        ),
    });
    await using upstream = await recordingUpstream();
    await using tokenman = await startTokenman({
      plugins: [cut],
      config: `${providersAt(upstream.url)}\n[cache]\nenabled = false\n[compression.rules]\ntool_output = true\n`,
    });
    const messages = [
      user("go"),
      ...called("a", "bash", log),
      ...called("b", "bash", log),
      ...called("c", "bash", log),
    ];
    const send = async (body: object) => {
      const headers = {
        "content-type": "application/json",
        "x-api-key": "sk-ant-api03-test",
        "x-claude-code-session-id": "s",
      };
      await (
        await fetch(`${tokenman.proxy}/v1/messages`, { method: "POST", headers, body: JSON.stringify(body) })
      ).arrayBuffer();
      return toolResults("anthropic-messages", upstream.last().body);
    };
    for (const count of [1, 3, 5]) await send(anthropic(messages.slice(0, count)));
    assert.deepEqual(
      [...(await send(anthropic(messages)))].map(([id, text]) => [id, text.length]),
      [
        ["a", log.length],
        ["b", 47],
        ["c", 47],
      ],
    );
    cuts = true;
    const results = await send(anthropic(messages));
    assert.equal(results.get("b"), log);
    assert.equal(results.get("c"), "[The same output as before, in the result of b]");
    assert.deepEqual(
      tokenman.status().plugins.filter(({ failures }) => failures > 0),
      [],
    );
  });
});
