import assert from "node:assert/strict";
import { describe, it } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import {
  errorEvent,
  faults,
  type RecordingUpstream,
  recordingUpstream,
  type Script,
  streamReply,
  type VendorDialect,
} from "@tokenman/plugin-sdk/testkit";
import OpenAI from "openai";
import { type Ledgered, startLedgered } from "../support/ledgered.ts";

const limits = { timeout: 30_000 };
const SSE = ["content-type", "text/event-stream"];

/** A provider farm: two servers of each vendor's format, the second with a key of its own. */
interface Farm extends AsyncDisposable {
  readonly first: RecordingUpstream;
  readonly second: RecordingUpstream;
  readonly tokenman: Ledgered;
  /** How the attempts of the next exchange ended, as the ledger has them. */
  attempts(): Promise<readonly string[]>;
}

async function farm(
  resilience: Readonly<Record<string, number | boolean>> = {},
  options: { readonly alone?: boolean } = {},
): Promise<Farm> {
  const first = await recordingUpstream();
  const second = await recordingUpstream();
  const table = (name: string, lines: Readonly<Record<string, string | number>>) =>
    `[providers.${name}]\n${Object.entries(lines)
      .map(([key, value]) => `${key} = ${JSON.stringify(value)}`)
      .join("\n")}\n`;
  const config = ["anthropic", "openai"].map((format) => {
    const spare = { format, api_base: second.url, key_ref: "env:RESILIENCE_TEST_KEY", priority: 1 };
    const main = table(format, { api_base: first.url, auth: "client" });
    return options.alone === true ? main : `${main}${table(`${format}-spare`, spare)}`;
  });
  process.env["RESILIENCE_TEST_KEY"] = "spare-key";
  const settings = Object.entries({ retry_base_delay_ms: 1, ...resilience }).map(
    ([key, value]) => `${key} = ${value}`,
  );
  const tokenman = await startLedgered({
    also: ["retry", "breaker"],
    // One conversation all along: it would stay with the spare, or be answered from memory.
    config: `${config.join("\n")}\n[routing]\naffinity_seconds = 0\n[cache]\nenabled = false\n[resilience]\n${settings.join("\n")}\n`,
  });
  return {
    first,
    second,
    tokenman,
    async attempts() {
      const [row] = await tokenman.ended();
      return row!.attempts.map(({ provider, result }) => {
        if (result.kind === "reply") return `${provider} ${result.status}`;
        return `${provider} ${result.kind === "error" ? result.code : result.kind}`;
      });
    },
    async [Symbol.asyncDispose]() {
      await tokenman.stop();
      await first.stop();
      await second.stop();
      assert.deepEqual([...first.failures, ...second.failures], []);
    },
  };
}

/** One vendor's SDK, which does not try again itself. */
interface Client {
  readonly dialect: VendorDialect;
  readonly provider: string;
  readonly limited: { readonly headers: readonly string[]; readonly body: string };
  /** The whole text. */
  ask(tokenman: Ledgered): Promise<string>;
  stream(tokenman: Ledgered, onText?: (text: string) => void): Promise<string>;
}

const anthropic = (tokenman: Ledgered) =>
  new Anthropic({ apiKey: "sk-ant-api03-x", baseURL: tokenman.proxy, maxRetries: 0 });
const openai = (tokenman: Ledgered) =>
  new OpenAI({ apiKey: "sk-x", baseURL: `${tokenman.proxy}/v1`, maxRetries: 0 });
const JSON_TYPE = ["content-type", "application/json"];

const CLIENTS: Readonly<Record<string, Client>> = {
  "@anthropic-ai/sdk": {
    dialect: "anthropic-messages",
    provider: "anthropic",
    limited: {
      headers: JSON_TYPE,
      body: '{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}},"request_id":"req_1"}',
    },
    async ask(tokenman) {
      const messages = [{ role: "user" as const, content: "hi" }];
      const message = await anthropic(tokenman).messages.create({
        model: "claude-x",
        max_tokens: 9,
        messages,
      });
      return message.content.map((block) => (block.type === "text" ? block.text : "")).join("");
    },
    async stream(tokenman, onText) {
      const messages = [{ role: "user" as const, content: "hi" }];
      const params = { model: "claude-x", max_tokens: 9, messages, stream: true } as const;
      let text = "";
      for await (const event of await anthropic(tokenman).messages.create(params)) {
        if (event.type !== "content_block_delta" || event.delta.type !== "text_delta") continue;
        text += event.delta.text;
        onText?.(text);
      }
      return text;
    },
  },
  openai: {
    dialect: "openai-chat",
    provider: "openai",
    limited: {
      headers: JSON_TYPE,
      body: '{"error":{"message":"m","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}',
    },
    async ask(tokenman) {
      const messages = [{ role: "user" as const, content: "hi" }];
      const chat = await openai(tokenman).chat.completions.create({ model: "gpt-x", messages });
      return chat.choices[0]?.message.content ?? "";
    },
    async stream(tokenman, onText) {
      const messages = [{ role: "user" as const, content: "hi" }];
      let text = "";
      const params = { model: "gpt-x", messages, stream: true } as const;
      for await (const chunk of await openai(tokenman).chat.completions.create(params)) {
        text += chunk.choices[0]?.delta.content ?? "";
        onText?.(text);
      }
      return text;
    },
  },
};

for (const [name, client] of Object.entries(CLIENTS)) {
  const { provider, dialect } = client;
  const statusOf = async (asked: Promise<unknown>): Promise<number | undefined> => {
    const error = await asked.then(
      () => assert.fail("it was answered"),
      (cause: unknown) => cause,
    );
    return (error as { readonly status?: number }).status;
  };

  describe(`${name} in front of a provider's bad day`, () => {
    it("gets its answer after a reset and a 529, from the same provider", limits, async () => {
      await using it = await farm({}, { alone: true });
      it.first.next(faults.reset(), faults.status(529));
      assert.equal(await client.ask(it.tokenman), "Hello there.");
      assert.deepEqual(await it.attempts(), [
        `${provider} TM_UPSTREAM_RESET`,
        `${provider} 529`,
        `${provider} 200`,
      ]);
      const bodies = it.first.requests.map(({ body }) => body.toString());
      assert.equal(new Set(bodies).size, 1, "the same bytes each time");
    });

    it("gets its answer from the next provider, with that one's own key", limits, async () => {
      await using it = await farm();
      it.first.script(faults.status(503, { headers: ["retry-after", "3600"] }));
      assert.equal(await client.stream(it.tokenman), "Hello there.");
      assert.deepEqual(await it.attempts(), [`${provider} 503`, `${provider}-spare 200`]);
      const { head } = it.second.last();
      assert.ok(head.includes("spare-key") && !head.includes("sk-"), "the client's key stays at home");
    });

    it("gets its answer although the first provider cannot be reached", limits, async () => {
      await using it = await farm();
      await it.first.stop();
      assert.equal(await client.ask(it.tokenman), "Hello there.");
      assert.deepEqual(await it.attempts(), [`${provider} TM_UPSTREAM_CONNECT`, `${provider}-spare 200`]);
    });

    it("does not see an error that is the first event of a stream", limits, async () => {
      await using it = await farm();
      it.first.next(async (call) => {
        await call.received;
        await call.reply({ status: 200, headers: SSE, body: errorEvent(dialect) });
      });
      assert.equal(await client.stream(it.tokenman), "Hello there.");
      assert.deepEqual(await it.attempts(), [`${provider} 200`, `${provider}-spare 200`]);
    });

    it("sees that error as it came, when nobody does better", limits, async () => {
      await using it = await farm({ retry_max_attempts: 2 });
      const broken: Script = async (call) => {
        await call.received;
        await call.reply({ status: 200, headers: SSE, body: errorEvent(dialect) });
      };
      it.first.script(broken);
      it.second.script(broken);
      await assert.rejects(client.stream(it.tokenman), /the test's error event/);
      assert.equal((await it.attempts()).length, 3);
    });

    it("sees the provider's own error when the attempts are used up", limits, async () => {
      await using it = await farm({ retry_max_attempts: 2 }, { alone: true });
      it.first.script(faults.status(529, { headers: ["retry-after-ms", "1"] }));
      assert.equal(await statusOf(client.ask(it.tokenman)), 529);
      assert.deepEqual(await it.attempts(), Array(3).fill(`${provider} 529`));
    });

    it("is told of a spend cap at once", limits, async () => {
      await using it = await farm();
      it.first.next(faults.status(429, client.limited));
      assert.equal(await statusOf(client.ask(it.tokenman)), 429);
      assert.deepEqual(await it.attempts(), [`${provider} 429`]);
      assert.equal(it.second.requests.length, 0);
    });

    it("sees a stream that breaks in the middle as broken, and nothing is sent twice", limits, async () => {
      await using it = await farm();
      const reply = streamReply(dialect, ["half ", "of it"]);
      const body = Buffer.from(reply.body as Uint8Array);
      let seen = () => {};
      const when = new Promise<void>((resolve) => {
        seen = resolve;
      });
      it.first.next(faults.cutAfter(body.indexOf("of it"), { reply, when }));
      await assert.rejects(client.stream(it.tokenman, seen));
      assert.deepEqual(await it.attempts(), [`${provider} 200`]);
      assert.equal(it.first.requests.length + it.second.requests.length, 1);
    });

    it("does not notice that the breaker leaves a dead provider alone", limits, async () => {
      await using it = await farm({ cb_failure_threshold: 2 });
      it.first.script(faults.status(500));
      for (let request = 0; request < 4; request++) {
        assert.equal(await client.ask(it.tokenman), "Hello there.");
        const first = request < 2 ? `${provider} 500` : `${provider} skipped`;
        assert.deepEqual(await it.attempts(), [first, `${provider}-spare 200`]);
      }
      assert.equal(it.first.requests.length, 2);
    });
  });
}

describe("an answer that had begun", () => {
  for (const [what, beginning] of [
    ["in its head", "HTTP/1.1 200 OK\r\nContent-Ty"],
    [
      "before its first event",
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
  ] as const) {
    it(`and broke ${what} is not asked for again`, limits, async () => {
      await using it = await farm();
      it.first.next(async (call) => {
        await call.received;
        await call.write(beginning);
        await call.end();
      });
      await CLIENTS["@anthropic-ai/sdk"]!.stream(it.tokenman).catch(() => {});
      assert.equal((await it.attempts()).length, 1);
      assert.equal(it.first.requests.length + it.second.requests.length, 1);
    });
  }
});
