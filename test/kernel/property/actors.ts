import {
  type Attempt,
  AttemptPolicy,
  definePlugin,
  type Exchange,
  type Plugin,
  type Reply,
  type ReplyInit,
  type Verdict,
} from "@tokenman/plugin-sdk";
import { candidatesOf, providerOf, testDialect } from "../support/routing.ts";
import {
  type Actor,
  type Behaviour,
  bodyOf,
  CUT_AFTER,
  CUT_BYTES,
  changes,
  eventsOf,
  failureOf,
  MAP_FAILS_AT,
  type Plan,
  providerName,
} from "./plan.ts";
import type { Run, Runs } from "./run.ts";

/** How long a hook may take. Long enough that a busy machine does not cut off one that is to pass. */
export const HOOK_MS = 250;
const WAIT_MS = HOOK_MS * 1.5;

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Does what `action` says beside what is special to a hook. `change` is what it changes there. */
function act(run: Run, exchange: Exchange, action: string, change: () => void): unknown {
  if (action === "pass") return undefined;
  if (action === "pass-async") return turn();
  if (action === "wait") return exchange.wait(sleep(WAIT_MS));
  if (action === "change-async") return turn().then(change);
  if (changes(action)) change();
  switch (failureOf(action)) {
    case "throw":
      throw new Error("planned to throw");
    case "reject":
      return turn().then(() => Promise.reject(new Error("planned to reject")));
    case "nonsense":
      return 42;
    case "hang":
      // It wakes up when it was given up and all is over, must not be able to do anything then, and must not be heard
      // when it ends.
      return run.wake(Promise.all([run.settled, sleep(HOOK_MS * 1.2)]), () => {
        try {
          change();
          run.late.push(action);
        } catch {
          // Refused, as it should be.
        }
      });
    default:
      return undefined;
  }
}

/** A plugin that does what each exchange's plan says of it. */
export function actor(name: Actor, closed: boolean, runs: Runs): Plugin {
  return definePlugin({
    name,
    version: "1.0.0",
    apiVersion: 1,
    onError: closed ? "closed" : "open",
    timeouts: { hookMs: HOOK_MS },
    setup(ctx) {
      const { generation, reload } = ctx.host;
      const seen = (exchange: Exchange, what: string): Run => {
        const run = runs.of(exchange.request.header("x-case"));
        run.calls.push(what);
        run.generations.add(generation);
        return run;
      };
      ctx.pipeline((_, hooks) => {
        hooks.request.tap((exchange) => {
          const run = seen(exchange, `request ${name}`);
          const action = run.plan.request[name];
          if (action === "answer") return { status: 210, body: `210 by ${name}` };
          if (action === "refuse")
            return exchange.refuse({ code: "TM_UNAUTHORIZED", message: "refused", status: 451 });
          if (action === "reload") return void reload("planned");
          if (action === "leave") {
            run.leave();
            const { signal } = exchange;
            if (signal.aborted) return undefined;
            return exchange.wait(
              new Promise((resolve) => signal.addEventListener("abort", () => resolve(undefined))),
            );
          }
          const change = () => {
            const [segment] = exchange.segments;
            exchange.edit(segment!, segment!.text + name);
          };
          return act(run, exchange, action, change) as undefined;
        });
        hooks.beforeUpstream.tap((exchange, attempt): Promise<Verdict> | Verdict | undefined => {
          const run = seen(exchange, `before ${attempt.number} ${name}`);
          const action = run.plan.before[attempt.number - 1]![name];
          if (action === "skip") return { skip: `by ${name}` };
          if (action === "answer") return { answer: { status: 211, body: `211 by ${name}` } };
          const change = () => {
            attempt.patch([{ op: "replace", pointer: "/alias", value: name }]);
            attempt.headers = [...attempt.headers, "X-Tag", name];
          };
          return act(run, exchange, action, change) as undefined;
        });
        hooks.response.tap((reply, exchange) => {
          const run = seen(exchange, `response ${name}`);
          return respond(run, exchange, reply, name);
        });
      });
    },
  });
}

function respond(
  run: Run,
  exchange: Exchange,
  reply: Reply,
  name: Actor,
): undefined | ReplyInit | Promise<undefined> {
  const action = run.plan.response[name];
  switch (action) {
    case "replace":
      return { status: 212, headers: ["X-Tag", name], body: `212 by ${name}` };
    case "body":
      if (!reply.streaming) reply.replaceBody(`body by ${name}`);
      return undefined;
    case "read":
      return reply.streaming ? undefined : reply.read().then(() => undefined);
    case "map":
    case "map-throw": {
      let index = 0;
      reply.mapEvents({
        event(event) {
          if (action === "map-throw" && index++ === MAP_FAILS_AT)
            throw new Error("planned to throw in a transform");
          return Buffer.from(`data: ${event.data}${name}\n\n`);
        },
      });
      return undefined;
    }
    case "observe":
    case "observe-throw": {
      const record = { ends: 0, dropped: action === "observe-throw" };
      run.observers.push(record);
      reply.observe({
        data() {
          if (action === "observe-throw") throw new Error("planned to throw in an observer");
        },
        end() {
          record.ends++;
        },
      });
      return undefined;
    }
    default: {
      const change = () => {
        reply.headers = [...reply.headers, "X-Tag", name];
        // What fails afterwards must take this with it.
        if (failureOf(action) !== undefined) reply.mapEvents({ event: () => undefined });
      };
      return act(run, exchange, action, change) as undefined;
    }
  }
}

/** Sees everything first and last, and changes nothing. */
export function witness(
  runs: Runs,
  generations: { readonly made: Set<number>; readonly gone: Set<number> },
): Plugin {
  return definePlugin({
    name: "witness",
    version: "1.0.0",
    apiVersion: 1,
    async setup(ctx) {
      const { generation } = ctx.host;
      await ctx.effect(
        "generation",
        () => void generations.made.add(generation),
        () => void generations.gone.add(generation),
      );
      const run = (exchange: Exchange): Run => {
        const found = runs.of(exchange.request.header("x-case"));
        found.exchange = exchange;
        found.generations.add(generation);
        return found;
      };
      ctx.pipeline((_, { request, beforeUpstream, response, lifecycle }) => {
        lifecycle.for("start").tap((exchange) => void run(exchange).calls.push("start"));
        request.tap((exchange) => void run(exchange).calls.push("request witness"));
        beforeUpstream.tap(
          (exchange, { number }) => void run(exchange).calls.push(`before ${number} witness`),
        );
        response.tap((_reply, exchange) => void run(exchange).calls.push("response witness"));
        lifecycle
          .for("attemptEnd")
          .tap((exchange, attempt: Attempt) => void run(exchange).calls.push(`attemptEnd ${attempt.number}`));
        lifecycle.for("settled").tap((exchange, outcome) => {
          const found = run(exchange);
          found.calls.push("settled");
          found.settle(outcome);
        });
      });
    },
  });
}

/** Decides by the plan of each exchange. Off for the project "none". */
export function planned(runs: Runs): Plugin {
  const planOf = (exchange: Exchange): Plan => runs.of(exchange.request.header("x-case")).plan;
  return definePlugin({
    name: "policy",
    version: "1.0.0",
    apiVersion: 1,
    provides: [AttemptPolicy],
    setup(ctx) {
      ctx.provide(AttemptPolicy, {
        holdFirstEvent: (exchange) => planOf(exchange).policy === "hold",
        accept: (_, __, { status, firstEvent }) => status < 500 && firstEvent?.kind !== "error",
        next({ exchange, live, untried }) {
          const candidate = untried[0];
          const together = planOf(exchange).policy === "hedge";
          if (candidate !== undefined && (together || live.length === 0)) return { kind: "try", candidate };
          return live.length > 0 ? { kind: "wait" } : { kind: "stop" };
        },
      });
    },
  });
}

/** Sends every exchange to its plan's providers, in that order. */
export function router(runs: Runs, upstream: string): Plugin {
  return definePlugin({
    name: "router",
    version: "1.0.0",
    apiVersion: 1,
    setup(ctx) {
      ctx.contribute("dialect", testDialect);
      ctx.pipeline((_, hooks) => {
        hooks.request.tap((exchange) => {
          const { plan } = runs.of(exchange.request.header("x-case"));
          exchange.candidates = candidatesOf(
            plan.providers.map((behaviour, index) =>
              providerOf(
                providerName(index),
                behaviour.startsWith("local")
                  ? local(runs, index, behaviour)
                  : `${upstream}/${providerName(index)}`,
              ),
            ),
          );
        });
      });
    },
  });
}

function local(runs: Runs, provider: number, behaviour: Behaviour) {
  return (
    request: { readonly headers: readonly string[]; readonly body: Buffer },
    exchange: Exchange,
  ): ReplyInit => {
    const run = runs.of(exchange.request.header("x-case"));
    const { plan } = run;
    const tags = request.headers.filter((_, index) => request.headers[index - 1] === "X-Tag");
    run.arrivals.push({ provider, body: String(request.body), tags });
    if (behaviour === "local-throw") throw new Error("planned to throw in a provider");
    const cut = behaviour === "local-cut";
    if (plan.stream) {
      const events = eventsOf(plan, provider, behaviour).map((data) => Buffer.from(`data: ${data}\n\n`));
      return {
        status: 200,
        headers: ["Content-Type", "text/event-stream"],
        body: pieces(events, cut ? CUT_AFTER : undefined),
      };
    }
    const body = bodyOf(plan, provider);
    return {
      status: 200,
      body: cut ? pieces([Buffer.from(body.slice(0, CUT_BYTES)), Buffer.from("!")], 1) : body,
    };
  };
}

async function* pieces(list: readonly Buffer[], breaksAt: number | undefined): AsyncGenerator<Buffer> {
  for (const [index, piece] of list.entries()) {
    if (index === breaksAt) throw new Error("planned to break off");
    await turn();
    yield piece;
  }
}
