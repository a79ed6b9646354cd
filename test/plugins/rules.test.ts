import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DecisionMemory, rewritesOf, savingsOf, type Tokenizer } from "@tokenman/plugin-sdk";
import {
  assertBytesEqual,
  assertPrefixStable,
  conversations,
  type PluginRun,
  type PluginSettings,
  Random,
  rewriteProblems,
  runPlugin,
  toolResults,
} from "@tokenman/plugin-sdk/testkit";
import rules from "../../plugins/rules/index.ts";
import { minifyJson } from "../../plugins/rules/json-text.ts";
import { looksLikeCode, looksLikeFile, quotesFile } from "../../plugins/rules/looks.ts";
import { collapseWhitespace, referToInstructions, stripMarkdown } from "../../plugins/rules/prose.ts";
import { withoutAnsi, withoutProgress, withRunsCounted } from "../../plugins/rules/terminal.ts";
import { minifyXml } from "../../plugins/rules/xml-text.ts";
import "../support/kernel.ts";

const ALL = {
  minify_json: true,
  minify_xml: true,
  collapse_whitespace: true,
  strip_markdown: true,
  dedup_instructions: true,
  tool_output: true,
};
const ANTHROPIC = [
  "Content-Type",
  "application/json",
  "x-api-key",
  "sk-ant-api03-test",
  "x-claude-code-session-id",
  "s",
];
const OPENAI = ["Content-Type", "application/json", "Authorization", "Bearer sk-test"];

/** A character is a token; `asked` has every text that was ever counted. */
class CountingTokenizer implements Tokenizer {
  readonly asked: string[] = [];
  answer: (texts: readonly { text: string }[]) => Promise<readonly number[]> = async (texts) =>
    texts.map(({ text }) => text.length);

  async estimate() {
    return { tokens: 1, uncorrected: 1, error: undefined };
  }
  count(_model: string, texts: readonly { text: string }[]): Promise<readonly number[]> {
    this.asked.push(...texts.map(({ text }) => text));
    return this.answer(texts);
  }
  learn() {}
}

async function start(
  config: PluginSettings["config"] = {},
  more: { decisions?: DecisionMemory; tokenizer?: Tokenizer; guard?: unknown } = {},
) {
  const { decisions = new DecisionMemory(), tokenizer = new CountingTokenizer(), guard } = more;
  const services = { decisions, tokenizer, ...(guard !== undefined && { guard }) };
  return runPlugin(rules, { config, services });
}

const anthropic = (messages: readonly object[], more: object = {}): object => ({
  model: "m",
  max_tokens: 9,
  ...more,
  messages,
});
const user = (...texts: string[]) => ({
  role: "user",
  content: texts.map((text) => ({ type: "text", text })),
});
const assistant = (text: string) => ({ role: "assistant", content: [{ type: "text", text }] });
/** A call of `tool` and its result. */
const called = (id: string, tool: string, content: unknown): object[] => [
  { role: "assistant", content: [{ type: "tool_use", id, name: tool, input: {} }] },
  { role: "user", content: [{ type: "tool_result", tool_use_id: id, content }] },
];

/** Sends a conversation as its client would: each turn of the user's once it is there. Gives the last request. */
async function grown(run: PluginRun, messages: readonly object[]): Promise<Buffer> {
  let last: Buffer | undefined;
  for (const [index, message] of messages.entries())
    if ((message as { role: string }).role === "user")
      last = await sent(run, anthropic(messages.slice(0, index + 1)));
  return last!;
}

async function sent(
  run: PluginRun,
  body: unknown,
  headers: readonly string[] = ANTHROPIC,
  path = "/v1/messages",
): Promise<Buffer> {
  const { upstream, reply } = await run.send({ path, headers, body });
  assert.equal(upstream.length, 1, String(reply.body));
  return upstream[0]!.body;
}

const SPACED =
  '{ "big" : 12345678901234567890,\n  "one": 1.0, "one": 1.00,\t"text": "a  \\"b\\" \\u0041 : , { }" }';
const DENSE = '{"big":12345678901234567890,"one":1.0,"one":1.00,"text":"a  \\"b\\" \\u0041 : , { }"}';

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
      String(await sent(run, chat, OPENAI, "/v1/chat/completions")),
      JSON.stringify(chat).replaceAll(JSON.stringify(SPACED), JSON.stringify(DENSE)),
    );
    const responses = {
      model: "m",
      instructions: SPACED,
      input: [{ role: "user", content: [{ type: "input_text", text: SPACED }] }],
    };
    assert.equal(
      String(await sent(run, responses, OPENAI, "/v1/responses")),
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
    assertBytesEqual(await sent(run, chat, OPENAI, "/v1/chat/completions"), JSON.stringify(chat));
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

describe("a decision", () => {
  it("is made once, by counted tokens, and noted", async () => {
    const tokenizer = new CountingTokenizer();
    await using run = await start({}, { tokenizer });
    const dear = '{ "a": 1, "dear": true }';
    tokenizer.answer = async (texts) =>
      texts.map(({ text }) => (text.includes("dear") ? 100 - text.length : text.length));
    const body = anthropic([user(SPACED, dear)]);
    const { upstream, exchange } = await run.send({ path: "/v1/messages", headers: ANTHROPIC, body });
    assert.ok(
      upstream[0]!.body.includes(JSON.stringify(DENSE)) && upstream[0]!.body.includes(JSON.stringify(dear)),
    );
    assert.deepEqual(savingsOf(exchange), [
      { kind: "compression", plugin: "rules", tokens: SPACED.length - DENSE.length, nanoUsd: undefined },
    ]);
    assert.equal(tokenizer.asked.length, 4);
    await sent(run, anthropic([user(SPACED, dear), assistant("ok"), user("on")]));
    assert.equal(tokenizer.asked.length, 4, "not counted again");
  });

  it("is to leave alone for good where nobody counts in time, also after a restart", async () => {
    const decisions = new DecisionMemory();
    const failing = new CountingTokenizer();
    failing.answer = () => Promise.reject(new Error("no threads"));
    const body = anthropic([user(SPACED)]);
    {
      await using run = await start({}, { decisions, tokenizer: failing });
      assertBytesEqual(await sent(run, body), JSON.stringify(body));
    }
    await using run = await start({}, { decisions });
    assertBytesEqual(await sent(run, body), JSON.stringify(body));
    assert.notEqual(
      String(await sent(run, anthropic([user(`${SPACED} `)]))),
      JSON.stringify(anthropic([user(`${SPACED} `)])),
    );
  });

  it("stays when the config changes: new rules are for new messages", async () => {
    const decisions = new DecisionMemory();
    const turns = [
      user("one   two"),
      assistant("ok   ok"),
      user("three   four"),
      assistant("ok"),
      user("five   six"),
    ];
    const expected = (count: number, from: number): string =>
      JSON.stringify(
        anthropic(
          turns
            .slice(0, count)
            .map((turn, index) =>
              index >= from && index % 2 === 0
                ? JSON.parse(JSON.stringify(turn).replaceAll("   ", " "))
                : turn,
            ),
        ),
      );
    {
      await using run = await start({}, { decisions });
      assert.equal(String(await sent(run, anthropic(turns.slice(0, 1)))), expected(1, 9));
    }
    {
      await using run = await start({ collapse_whitespace: true }, { decisions });
      assert.equal(String(await sent(run, anthropic(turns.slice(0, 3)))), expected(3, 2));
      assert.equal(String(await sent(run, anthropic(turns))), expected(5, 2));
    }
    // Switched off again, what was sent stays as it was sent.
    await using run = await start({}, { decisions });
    const more = [...turns, assistant("ok"), user("seven   eight")];
    const out = JSON.parse(String(await sent(run, anthropic(more)))) as { messages: unknown[] };
    assert.deepEqual(
      out.messages.slice(0, 5),
      (JSON.parse(expected(5, 2)) as { messages: unknown[] }).messages,
    );
    assert.deepEqual(out.messages[6], user("seven   eight"));
  });

  it("is not made for a session that may not be touched any more, and what was decided stays", async () => {
    let touch = "new";
    await using run = await start({}, { guard: { touch: () => touch } });
    const turns = [user(SPACED), assistant("ok"), user(`${SPACED} `), assistant("ok"), user(` ${SPACED}`)];
    const dense = (count: number) => JSON.stringify(anthropic([user(DENSE), ...turns.slice(1, count)]));
    const { exchange } = await run.send({
      path: "/v1/messages",
      headers: ANTHROPIC,
      body: anthropic(turns.slice(0, 1)),
    });
    assert.deepEqual(
      rewritesOf(exchange).map(({ knownTokens }) => knownTokens),
      [0],
    );
    touch = "known";
    assert.equal(String(await sent(run, anthropic(turns.slice(0, 3)))), dense(3));
    touch = "new";
    assert.equal(String(await sent(run, anthropic(turns))), dense(5), "left alone for good");
    touch = "none";
    assertBytesEqual(await sent(run, anthropic(turns)), JSON.stringify(anthropic(turns)));
  });

  it("is none for a subscription, nor for whoever asks for none", async () => {
    await using run = await start(ALL);
    const body = JSON.stringify(anthropic([user(SPACED, "a   b")]));
    assertBytesEqual(await sent(run, body, [...ANTHROPIC, "x-tokenman-nocompress", "true"]), body);
    assertBytesEqual(await sent(run, body, [...ANTHROPIC, "anthropic-beta", "oauth-2025-04-20"]), body);
  });
});

describe("the prefix", () => {
  it("stays the same over turns, a reload and a restart, in every dialect, with all rules", async () => {
    const texts = [
      SPACED,
      "a   b\n\n\n\n**c**  d",
      "warning: the same again\n".repeat(40),
      `${"QUJD".repeat(300)}`,
      "<a>\n  <b/>\n</a>",
    ];
    let changed = 0;
    for (const turns of conversations(36, { turns: 7, seed: 7, texts })) {
      const decisions = new DecisionMemory();
      const { dialect } = turns[0]!;
      let run = await start(ALL, { decisions });
      try {
        await assertPrefixStable(turns, async ({ number, path, body }) => {
          if (number === 3) assert.equal((await run.reload("test")).ok, true);
          if (number === 5) {
            await run.stop();
            run = await start(ALL, { decisions });
          }
          const out = await sent(
            run,
            body,
            dialect === "anthropic-messages" ? ANTHROPIC : [...OPENAI, "session_id", "s"],
            path,
          );
          assert.deepEqual(rewriteProblems(dialect, body, out), []);
          if (!out.equals(body)) changed++;
          return out;
        });
      } finally {
        for (const plugin of run.status().plugins)
          assert.equal(plugin.failures, 0, JSON.stringify(run.log.slice(-3)));
        await run.stop();
      }
    }
    assert.ok(changed > 100, `${changed} were changed`);
  });
});

describe("odd requests", () => {
  it("pass, and never are a failure", async () => {
    await using run = await start(ALL);
    const many = Array.from({ length: 10_000 }, (_, index) => ({
      role: index % 2 ? "assistant" : "user",
      content: "m",
    }));
    const bodies: unknown[] = [
      Buffer.from('not json {"a": "{ }" '),
      Buffer.from('{"messages": [{"role":"user","content":"{ '),
      Buffer.from('{"messages": [{"role":"user","content":"[ \\q ]"}]}'),
      [],
      "null",
      { messages: [] },
      { messages: [null, 1, "x", []] },
      { messages: [{ role: "wizard", content: SPACED }] },
      {
        messages: [
          { role: "user" },
          { role: "user", content: null },
          { role: "user", content: [] },
          { role: "user", content: "" },
        ],
      },
      {
        messages: [
          { role: "user", content: [{ type: "hologram", text: SPACED }, null, 7, { type: "text" }] },
        ],
      },
      { messages: many },
      { system: 7, messages: [{ role: "user", content: `${"[".repeat(20_000)} ${"]".repeat(20_000)}` }] },
    ];
    const plain = new Set(
      bodies
        .slice(0, -1)
        .map((body) =>
          Buffer.isBuffer(body) ? String(body) : typeof body === "string" ? body : JSON.stringify(body),
        ),
    );
    for (const path of [
      "/v1/messages",
      "/v1/chat/completions",
      "/v1/responses",
      "/v1/embeddings",
      "/v1/other",
    ])
      for (const body of bodies) {
        const out = String(await sent(run, body, ANTHROPIC, path));
        if (!plain.has(out)) JSON.parse(out);
      }
    const random = new Random(3);
    const base = JSON.stringify(
      anthropic([user(SPACED, "a   b"), ...called("a", "bash", "x\n".repeat(300)), user("c   d")]),
    );
    for (let round = 0; round < 300; round++) {
      const at = random.below(base.length);
      const broken =
        base.slice(0, at) +
        random.pick(["", "{", '"', "]", "null", "\\", "\u0000"]) +
        base.slice(at + random.below(3));
      await sent(run, Buffer.from(broken));
    }
    for (const plugin of run.status().plugins)
      assert.equal(plugin.failures, 0, JSON.stringify(run.log.slice(-3)));
  });
});
