import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { headerValue } from "@tokenman/plugin-sdk";
import {
  assertBytesEqual,
  conversations,
  providersAt,
  Random,
  type RecordingUpstream,
  recordingUpstream,
  rewriteProblems,
  type VendorDialect,
} from "@tokenman/plugin-sdk/testkit";
import { startTokenman, type Tokenman } from "../support/kernel.ts";

/** All compressors that work on a request by itself, with all that they can do to a text. */
const CONFIG = (url: string): string => `${providersAt(url)}
[compression]
holdout = 0
[compression.dedup]
min_tokens = { claude-test = 300 }
[compression.rules]
minify_json = true
minify_xml = true
collapse_whitespace = true
strip_markdown = true
dedup_instructions = true
tool_output = true
[compression.history]
enabled = true
window_size = 3
[compression.heartbeat]
enabled = true
`;

/** … and summaries, which cost a request of their own. */
const WITH_SUMMARIES = (url: string): string => `${CONFIG(url)}
[compression.summarization]
enabled = true
max_messages = 4
`;

const PATH: Readonly<Record<VendorDialect, string>> = {
  "anthropic-messages": "/v1/messages",
  "openai-chat": "/v1/chat/completions",
  "openai-responses": "/v1/responses",
};
const DIALECTS = Object.keys(PATH) as VendorDialect[];

const CODE = Array.from({ length: 60 }, (_, n) => `  const row${n} = read(${n});   // ${n}`).join("\n");
const DIFF = `diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a   b\n+a  b\n\n\n\n${" line\n".repeat(40)}`;
const LOG = `\u001b[32mok\u001b[0m\n${"waiting for the server\n".repeat(60)}done`;

/** Odd, but no riddle: they may be in what is cut away. */
const CUTTABLE: readonly unknown[] = [
  { role: "user", content: "" },
  { role: "assistant", content: [] },
];
const UNKNOWN: readonly unknown[] = [
  { role: "wizard", content: "a   b" },
  { role: "assistant", content: [{ type: "hologram", text: "a   b\n\n\n\nc" }] },
  { type: "hologram", data: "a   b" },
  { role: "user", content: null },
  null,
  7,
  [],
];
/** Where requests are counted that could not be read. */
const COUNTED = [
  "tokenman_cache_hints_total",
  "tokenman_history_requests_total",
  "tokenman_summary_requests_total",
];

async function send(tokenman: Tokenman, path: string, body: Buffer, session: string): Promise<number> {
  const reply = await fetch(`${tokenman.proxy}${path}`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      "x-claude-code-session-id": session,
      "x-session-id": session,
      ...(path === PATH["anthropic-messages"]
        ? { "x-api-key": "sk-ant-api03-test" }
        : { authorization: "Bearer sk-test" }),
    },
    body,
  });
  await reply.arrayBuffer();
  return reply.status;
}

function assertNoFailures({ kernel }: Tokenman): void {
  const { plugins } = kernel.status();
  for (const name of ["dedup", "rules", "history", "heartbeat", "summarize"]) {
    const failures = plugins.find((plugin) => plugin.name === name)?.failures ?? 0;
    assert.equal(failures, 0, name);
  }
}

/** The body of the client's newest request, as it reached the provider. */
function lastSent({ requests }: RecordingUpstream): Buffer {
  return requests.findLast(({ headers }) => headerValue(headers, "user-agent") !== "tokenman-summarize")!
    .body;
}

/** A turn of an agent that keeps its tools in a hash map, with a file, a diff and a log in the results. */
function agentTurn(dialect: VendorDialect, turn: number, random: Random): Buffer {
  const tools = ["read_file", "git_diff", "bash"]
    .toSorted(() => random.below(3) - 1)
    .map((name) => {
      if (dialect === "anthropic-messages")
        return { name, description: name, input_schema: { type: "object" } };
      const definition = { name, description: name, parameters: { type: "object" } };
      return dialect === "openai-chat"
        ? { type: "function", function: definition }
        : { type: "function", ...definition };
    });
  const outputs = [
    ["read_file", CODE],
    ["git_diff", DIFF],
    ["bash", LOG],
  ] as const;
  const items: object[] = [];
  const user = (text: string): number =>
    items.push(
      dialect === "openai-responses"
        ? { type: "message", role: "user", content: [{ type: "input_text", text }] }
        : { role: "user", content: text },
    );
  for (let index = 0; index < turn; index++) {
    const id = `call_${index}`;
    const [name, output] = outputs[index % 3]!;
    user(`{ "step" : ${index},  "say" : "go   on" }`);
    if (index === turn - 1) break;
    if (dialect === "anthropic-messages")
      items.push(
        { role: "assistant", content: [{ type: "tool_use", id, name, input: {} }] },
        { role: "user", content: [{ type: "tool_result", tool_use_id: id, content: output }] },
        { role: "assistant", content: [{ type: "text", text: `**done**   with ${index}` }] },
      );
    else if (dialect === "openai-chat")
      items.push(
        {
          role: "assistant",
          content: null,
          tool_calls: [{ id, type: "function", function: { name, arguments: "{}" } }],
        },
        { role: "tool", tool_call_id: id, content: output },
        { role: "assistant", content: `**done**   with ${index}` },
      );
    else
      items.push(
        { type: "function_call", call_id: id, name, arguments: "{}" },
        { type: "function_call_output", call_id: id, output },
        {
          type: "message",
          role: "assistant",
          content: [{ type: "output_text", text: `**done**   with ${index}` }],
        },
      );
  }
  const system = "Be careful   with files.\n\n\n\nSay **why**.\n".repeat(60);
  const body =
    dialect === "anthropic-messages"
      ? { model: "claude-test", max_tokens: 99, system, tools, messages: items }
      : dialect === "openai-chat"
        ? { model: "gpt-test", tools, messages: [{ role: "system", content: system }, ...items] }
        : { model: "gpt-test", instructions: system, tools, input: items };
  return Buffer.from(JSON.stringify(body));
}

describe("all compressors together", { timeout: 120_000 }, () => {
  for (const dialect of DIALECTS)
    it(`leave an agent's requests valid, and its code, diffs and files to the byte: ${dialect}`, async () => {
      await using upstream = await recordingUpstream();
      await using tokenman = await startTokenman({ config: CONFIG(upstream.url) });
      const random = new Random(9);
      const code = JSON.stringify(CODE);
      const diff = JSON.stringify(DIFF);
      let changed = 0;
      for (let turn = 1; turn < 14; turn++) {
        const body = agentTurn(dialect, turn, random);
        assert.equal(await send(tokenman, PATH[dialect], body, "agent"), 200);
        const sent = upstream.last().body;
        assert.deepEqual(rewriteProblems(dialect, body, sent), [], `turn ${turn}`);
        if (!sent.equals(body)) changed++;
        const text = String(sent);
        // What was cut away is away as a whole; what is there is as it was.
        for (const [call, output] of text.matchAll(/"call_(\d+)"/g)) {
          const wanted = [code, diff, undefined][Number(output) % 3];
          if (wanted !== undefined) assert.ok(text.includes(wanted), `turn ${turn}: the result of ${call}`);
        }
        for (const line of ["const row59 = read(59);   // 59", "-a   b\\n+a  b\\n\\n\\n\\n line"])
          if (String(body).includes(line) && text.includes(line.slice(0, 8))) assert.ok(text.includes(line));
      }
      assert.ok(changed > 10, `${changed} were changed`);
      assertNoFailures(tokenman);
    });

  it("leave random conversations valid in every dialect", async () => {
    await using upstream = await recordingUpstream();
    await using tokenman = await startTokenman({ config: CONFIG(upstream.url) });
    let session = 0;
    for (const turns of conversations(24, {
      turns: 7,
      seed: 11,
      texts: [CODE, DIFF, LOG, "a   b\n\n\n\n**c**"],
    })) {
      session++;
      for (const { dialect, path, body } of turns) {
        assert.equal(await send(tokenman, path, body, `s${session}`), 200);
        assert.deepEqual(rewriteProblems(dialect, body, upstream.last().body), []);
      }
    }
    assertNoFailures(tokenman);
  });

  it("let odd requests pass as they came, whatever the dialect, and none is a failure", async () => {
    await using upstream = await recordingUpstream();
    await using tokenman = await startTokenman({ config: WITH_SUMMARIES(upstream.url) });
    const pad = "x".repeat(5_000);
    const odd = (list: unknown[]): object[] => [
      { model: "m", messages: list, pad },
      { model: "m", input: list, pad },
    ];
    const bodies: unknown[] = [
      Buffer.from(`not json ${pad}`),
      Buffer.from(`{"messages": [{"role":"user","content":"${pad}`),
      ...odd([]),
      ...odd([null, 1, "x", []]),
      ...odd([{ role: "wizard", content: "a" }]),
      ...odd([{ role: "user" }, { role: "user", content: null }, { role: "user", content: [] }]),
      ...odd([{ role: "user", content: [{ type: "hologram", data: "d" }, null, 7] }]),
      ...odd([{ type: "hologram", data: "d" }]),
      ...odd(
        Array.from({ length: 10_000 }, (_, n) => ({ role: n % 2 ? "assistant" : "user", content: "m" })),
      ),
      { model: "m", pad, tools: [null, 7, {}, {}], messages: [{ role: "user", content: "" }] },
      { model: "m", pad, tools: "none", messages: {} },
    ];
    for (const path of Object.values(PATH))
      for (const each of bodies) {
        const body = Buffer.isBuffer(each) ? each : Buffer.from(JSON.stringify(each));
        await send(tokenman, path, body, "odd");
        const isLong = body.length > 100_000;
        const out = lastSent(upstream);
        // Ten thousand messages are no odd ones: they may be cut, and what is left is valid.
        if (isLong && out.length < body.length) {
          const dialect = DIALECTS.find((each) => PATH[each] === path)!;
          assert.deepEqual(rewriteProblems(dialect, body, out), []);
          continue;
        }
        // A key for OpenAI's cache and marks for Anthropic's are no change of what the model reads.
        const sent = String(out)
          .replace(/,"prompt_cache_key":"tm-[\w-]+"/, "")
          .replaceAll(/,"cache_control":\{[^}]*\}/g, "");
        assertBytesEqual(Buffer.from(sent), body, `${path} ${String(body).slice(0, 60)}`);
      }
    assertNoFailures(tokenman);
    const metrics = await (await fetch(`${tokenman.dashboard}/metrics`)).text();
    for (const name of COUNTED)
      assert.match(metrics, new RegExp(`^${name}\\{.*"unreadable".*\\} [1-9]`, "m"));
  });

  for (const dialect of DIALECTS)
    it(`leave what they do not know in the middle of a long conversation as it is: ${dialect}`, async () => {
      await using upstream = await recordingUpstream();
      await using tokenman = await startTokenman({ config: WITH_SUMMARIES(upstream.url) });
      const list = dialect === "openai-responses" ? "input" : "messages";
      let session = 0;
      for (const odd of [...CUTTABLE, ...UNKNOWN]) {
        session++;
        for (const turn of [8, 10, 12]) {
          const body = JSON.parse(String(agentTurn(dialect, turn, new Random(3)))) as Record<string, unknown>;
          const items = body[list] as unknown[];
          // Behind an answer, so that no call is parted from its result.
          items.splice(dialect === "openai-chat" ? 5 : 4, 0, odd);
          const sent = Buffer.from(JSON.stringify(body));
          const what = `${JSON.stringify(odd)}, turn ${turn}`;
          assert.equal(await send(tokenman, PATH[dialect], sent, `odd ${session}`), 200);
          const out = lastSent(upstream);
          assert.deepEqual(rewriteProblems(dialect, sent, out), [], what);
          const kept = JSON.parse(String(out))[list] as unknown[];
          if (UNKNOWN.includes(odd)) assert.equal(kept.length, items.length, what);
          if (kept.length === items.length)
            assert.ok(
              kept.some((item) => isDeepStrictEqual(item, odd)),
              what,
            );
        }
      }
      assertNoFailures(tokenman);
    });
});
