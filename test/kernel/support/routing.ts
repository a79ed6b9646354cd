import {
  AttemptPolicy,
  type Candidate,
  type Dialect,
  definePlugin,
  type Exchange,
  type Hooks,
  type JsonNode,
  type Outcome,
  type Plugin,
  type Provider,
  parseIndex,
  type SegmentSpan,
} from "@tokenman/plugin-sdk";

/**
 * A wire format of the tests: `POST /v1/test`, every string of `/texts` a segment. In a stream an event that begins with
 * "error" reports a failure, "ping" says nothing, and "[DONE]" is the regular end.
 */
export const testDialect: Dialect = {
  name: "test",
  format: "test",
  routes: [{ method: "POST", path: "/v1/test" }],
  generates: true,
  describe: () => undefined,
  segments: (body) =>
    (parseIndex(body).find("/texts")?.items() ?? []).map(
      (node: JsonNode, index): SegmentSpan => ({
        pointer: `/texts/${index}`,
        role: "user",
        kind: "text",
        message: index,
        sealed: false,
        start: node.start,
        end: node.end,
      }),
    ),
  usageReader: () => ({ event() {}, body() {}, usage: () => undefined }),
  judgeEvent({ data }) {
    if (data.startsWith("error"))
      return { kind: "error", type: data, status: 529, retryable: true, message: data };
    if (data.startsWith("ping")) return { kind: "idle" };
    return data === "[DONE]" ? { kind: "terminal" } : { kind: "content" };
  },
  judgeError: () => ({ type: undefined, code: undefined, message: undefined, retryable: true }),
};

/** A provider reached over HTTP at `apiBase`, or by `answer` in this process. */
export function providerOf(
  name: string,
  at: string | NonNullable<Provider["answer"]>,
  more: Partial<Provider> = {},
): Provider {
  return {
    name,
    format: "test",
    apiBase: typeof at === "string" ? at : undefined,
    models: [],
    priority: 0,
    timeouts: { connectMs: 5_000, headMs: 60_000, idleMs: 60_000 },
    auth: "none",
    ...(typeof at === "function" && { answer: at }),
    ...more,
  };
}

export function candidatesOf(providers: readonly Provider[]): Candidate[] {
  return providers.map((provider) => ({ provider, credential: { kind: "none" }, reason: "test" }));
}

/** Contributes the test's format and sends every exchange to `choose`'s providers, in that order. */
export function router(choose: (exchange: Exchange) => readonly Provider[]): Plugin {
  return definePlugin({
    name: "test-router",
    version: "1.0.0",
    apiVersion: 1,
    stage: "route",
    setup(ctx) {
      ctx.contribute("dialect", testDialect);
      ctx.pipeline((_, hooks) => {
        hooks.request.tap((exchange) => {
          exchange.candidates = candidatesOf(choose(exchange));
        });
      });
    },
  });
}

export function policy(decides: Partial<AttemptPolicy> & Pick<AttemptPolicy, "next">): Plugin {
  return definePlugin({
    name: "test-policy",
    version: "1.0.0",
    apiVersion: 1,
    provides: [AttemptPolicy],
    setup(ctx) {
      ctx.provide(AttemptPolicy, {
        holdFirstEvent: () => false,
        accept: (_, __, { status, firstEvent }) => status < 500 && firstEvent?.kind !== "error",
        ...decides,
      });
    },
  });
}

/** Tries one candidate after the other. */
export const walking: AttemptPolicy["next"] = ({ live, untried }) => {
  if (live.length > 0) return { kind: "wait" };
  const candidate = untried[0];
  return candidate === undefined ? { kind: "stop" } : { kind: "try", candidate };
};

export function tapping(name: string, tap: (hooks: Hooks) => void): Plugin {
  return definePlugin({
    name,
    version: "1.0.0",
    apiVersion: 1,
    setup: (ctx) => ctx.pipeline((_, hooks) => tap(hooks)),
  });
}

export interface Witness {
  readonly plugin: Plugin;
  /** What happened to the exchanges, in order: "attempt 1 reply 200 complete", "answered 200". */
  readonly events: string[];
  /** Resolves when this many exchanges are settled. */
  settled(count?: number): Promise<readonly Outcome[]>;
}

export function witness(): Witness {
  const events: string[] = [];
  const outcomes: Outcome[] = [];
  const waiting: { count: number; resolve: (outcomes: readonly Outcome[]) => void }[] = [];
  return {
    events,
    settled: (count = 1) =>
      new Promise((resolve) => {
        if (outcomes.length >= count) resolve(outcomes);
        else waiting.push({ count, resolve });
      }),
    plugin: tapping("witness", ({ lifecycle }) => {
      lifecycle.for("attemptEnd").tap((_, { number, provider, result }) => {
        const how =
          result?.kind === "reply"
            ? `reply ${result.status} ${result.body}`
            : result?.kind === "error"
              ? `error ${result.code}`
              : result?.kind === "skipped"
                ? `skipped by ${result.by}: ${result.reason}`
                : result?.kind;
        events.push(`${number} ${provider.name} ${how}`);
      });
      lifecycle.for("settled").tap((_, outcome) => {
        events.push(
          `${outcome.kind} ${outcome.status}${outcome.code === undefined ? "" : ` ${outcome.code}`}`,
        );
        outcomes.push(outcome);
        for (const { count, resolve } of waiting) if (outcomes.length >= count) resolve(outcomes);
      });
    }),
  };
}
