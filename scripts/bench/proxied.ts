/**
 * Sends recorded calls through a whole TokenMan in this process to the embedded provider, on a clock that follows the
 * recording, and gives what TokenMan's own ledger says of them.
 */
import http from "node:http";
import {
  definePlugin,
  Ledger,
  type LedgerEnd,
  type LedgerEvent,
  optional,
  Tokenizer,
} from "@tokenman/plugin-sdk";
import { FakeClock, startKernel } from "@tokenman/plugin-sdk/testkit";
import { testHost } from "../../cli/test-host.ts";
import { mockPlugin } from "../../plugins/mock/index.ts";
import type { Direction } from "../../plugins/mock/reply.ts";
import { CACHE_TTL_MS, type RecordedCall, type ReplayDialect } from "./recorded-calls.ts";
import type { SessionTurn } from "./session.ts";
import type { ProviderRules } from "./simulated.ts";

/** An exchange as TokenMan recorded it. */
export interface ProxiedCall {
  /** Undefined for a call that a plugin made by itself. */
  readonly turn: SessionTurn | undefined;
  readonly end: LedgerEnd;
}

export interface ProxyOptions extends ProviderRules {
  readonly dialect: ReplayDialect;
  /** Tables of the config file, beside those of the provider. */
  readonly config?: string;
  /** What the provider does about a call, beside giving the output that the recording has. */
  readonly direction?: (turn: SessionTurn) => Direction;
  /** Told of each body that reached the provider. */
  readonly sent?: (turn: SessionTurn, body: Buffer) => void;
}

const PATH: Readonly<Record<ReplayDialect, string>> = {
  "anthropic-messages": "/v1/messages",
  "openai-chat": "/v1/chat/completions",
  "openai-responses": "/v1/responses",
};
/** The longest that there is, so that threads are not ended and begun again with the clock's leaps. */
const IDLE_SECONDS = 86_400;
/** How the ledger knows the client's calls from those that plugins make. */
const CLIENT = "recorded-client/1.0";

/** The calls one after another, each sent at its time; a client that a call hangs on leaves. */
export async function sendThrough(
  calls: Iterable<RecordedCall>,
  options: ProxyOptions,
): Promise<ProxiedCall[]> {
  const iterator = calls[Symbol.iterator]();
  let next = iterator.next();
  if (next.done === true) return [];
  using clock = new FakeClock({ now: next.value.sentAt });
  let { turn } = next.value;
  const mock = mockPlugin({
    now: () => clock.now,
    directions({ body }) {
      options.sent?.(turn, body);
      const direction = options.direction?.(turn);
      return { ...direction, usage: { outputTokens: turn.usage.output, ...direction?.usage } };
    },
  });
  let ledger: Ledger | undefined;
  let tokenizer: Tokenizer | undefined;
  const probe = definePlugin({
    name: "bench-probe",
    version: "1.0.0",
    apiVersion: 1,
    needs: { ledger: Ledger, tokenizer: optional(Tokenizer) },
    setup({ services }) {
      ledger ??= services.ledger;
      tokenizer ??= services.tokenizer;
    },
  });
  const agent = new http.Agent({ keepAlive: true });
  try {
    await using kernel = await startKernel({
      host: testHost,
      plugins: [mock, probe],
      also: ["cache", "breaker", "retry"],
      config: `${configOf(options)}\n${options.config ?? ""}`,
    });
    // A clock that stands still would not bound what the kernel waits for when it ends.
    using _real = { [Symbol.dispose]: () => clock.restore() };
    const watched = new Watched();
    let waitedFor = 0;
    /** What plugins do beside a call is done before the next one, however fast this machine is. */
    const quiet = async (): Promise<void> => {
      for (await clock.settle(); watched.ownBegun > waitedFor; await clock.settle()) {
        waitedFor = watched.ownBegun;
        await watched.ownHaveEnded();
        // What they have counted afterwards, once what a summary is made of and once the summary, is counted in turn.
        for (let counted = 0; counted < 2; counted++) {
          await clock.settle();
          await tokenizer?.count("", [{ text: " " }]);
        }
      }
    };
    ledger!.watch(watched.event);
    for (; next.done !== true; next = iterator.next()) {
      const { body, sentAt } = next.value;
      ({ turn } = next.value);
      await clock.advance(Math.max(0, sentAt - clock.now));
      const ended = watched.expect(turn);
      const leaves = options.direction?.(turn).hangsAfter !== undefined;
      await post(`${kernel.proxy}${PATH[options.dialect]}`, body, agent, leaves);
      await ended;
      await quiet();
    }
    return watched.found;
  } finally {
    agent.destroy();
  }
}

/** Tells the client's exchanges from others, and waits for them. */
class Watched {
  readonly found: ProxiedCall[] = [];
  #turn: SessionTurn | undefined;
  #id: string | undefined;
  #ended = (): void => {};
  #ownEnded = 0;
  #ownHaveEnded = (): void => {};
  /** Exchanges that plugins made by themselves. */
  ownBegun = 0;

  /** Resolves when none of them is under way. */
  ownHaveEnded(): Promise<void> {
    if (this.#ownEnded === this.ownBegun) return Promise.resolve();
    return new Promise((resolve) => {
      this.#ownHaveEnded = resolve;
    });
  }
  /** Resolves when the exchange of this call has ended. */
  expect(turn: SessionTurn): Promise<void> {
    this.#turn = turn;
    return new Promise((resolve) => {
      this.#ended = resolve;
    });
  }
  readonly event = (event: LedgerEvent): void => {
    if (event.kind === "begin") {
      if (event.row.client === CLIENT) this.#id = event.row.exchangeId;
      else this.ownBegun++;
      return;
    }
    const isClients = event.row.exchangeId === this.#id;
    this.found.push({ turn: isClients ? this.#turn : undefined, end: event.row });
    if (isClients) {
      this.#ended();
      return;
    }
    if (++this.#ownEnded === this.ownBegun) this.#ownHaveEnded();
  };
}

/** Resolves at the reply's end, or when the client has left after the first bytes. Rejects where the status is no 200. */
function post(url: string, body: Buffer, agent: http.Agent, leaves: boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = {
      "User-Agent": CLIENT,
      "Content-Type": "application/json",
      "Content-Length": body.length,
      // The vendor's own kind of key: a subscription's traffic is not changed.
      ...(url.endsWith("/messages")
        ? { "x-api-key": "sk-ant-api03-replay" }
        : { Authorization: "Bearer sk-replay" }),
      "X-Claude-Code-Session-Id": "replay",
    };
    const request = http.request(url, { method: "POST", headers, agent }, (response) => {
      const said: Buffer[] = [];
      response.on("error", reject);
      response.on("data", (chunk: Buffer) => {
        if (response.statusCode !== 200) said.push(chunk);
        else if (leaves) {
          request.destroy();
          resolve();
        }
      });
      response.on("end", () => {
        if (response.statusCode === 200) resolve();
        else
          reject(new Error(`status ${response.statusCode}: ${Buffer.concat(said).toString("utf8", 0, 500)}`));
      });
    });
    request.on("error", reject);
    request.end(body);
  });
}

function configOf({ bytesPerToken, minTokens }: ProviderRules): string {
  return `[routing]
default_provider = "mock"
[mock]
mode = "fixed"
bytes_per_token = ${bytesPerToken}
[tokenizer]
workers = 1
idle_seconds = ${IDLE_SECONDS}
[mock.prompt_cache]
min_tokens = ${minTokens}
openai_ttl_seconds = ${CACHE_TTL_MS / 1_000}
openai_reports_writes = true`;
}
