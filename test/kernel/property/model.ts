import {
  ACTORS,
  type Actor,
  type Behaviour,
  bodyOf,
  type Closed,
  CUT_AFTER,
  CUT_BYTES,
  changes,
  ERROR_BODY,
  eventsOf,
  FAILURES,
  failureOf,
  MAP_FAILS_AT,
  type Plan,
  providerName,
  requestBody,
  STALL_AFTER,
} from "./plan.ts";

/** An attempt as it must have gone. */
export interface ExpectedAttempt {
  readonly provider: number;
  /** The actors whose beforeUpstream tap ran, in order. */
  readonly before: readonly Actor[];
  readonly result: "reply" | "skipped" | "error" | "cancelled";
  /** The body that the provider got; undefined where it got none. */
  readonly sent: string | undefined;
  /** Values of the header that actors add, as the provider got them. */
  readonly tags: readonly Actor[];
}

/** What must come of a plan. */
export interface Expected {
  readonly kind: "answered" | "refused" | "partial" | "aborted";
  readonly code: string | undefined;
  /** Of what the client got; undefined where it was gone. */
  readonly status: number | undefined;
  /** The client's bytes; undefined for an error of TokenMan's own, whose words are not modelled. */
  readonly body: string | undefined;
  /** Whether all of `body` must have come, or what came may be any beginning of it. */
  readonly whole: boolean;
  readonly provider: string | undefined;
  readonly tags: readonly Actor[];
  readonly request: readonly Actor[];
  readonly attempts: readonly ExpectedAttempt[];
  readonly response: readonly Actor[];
}

interface ModelReply {
  status: number;
  from: "provider" | "plugin" | "kernel";
  provider: number | undefined;
  code: string | undefined;
  /** Undefined for an error of TokenMan's own. */
  body: string | undefined;
  events: string[] | undefined;
  /** Breaks off after what is there. */
  cut: string | undefined;
  /** Neither ends nor breaks off. */
  stalls: boolean;
  tags: Actor[];
}

/** `winner`: the provider whose reply the client got, where the plan leaves that to chance. */
export function expectedOf(plan: Plan, closed: Closed, winner: number | undefined): Expected {
  const request: Actor[] = [];
  let text = "t";
  let gone = false;
  let reply: ModelReply | undefined;
  let entered: readonly Actor[] = ACTORS;
  let answeredBy: Actor | undefined;
  for (const [index, actor] of ACTORS.entries()) {
    const action = plan.request[actor];
    request.push(actor);
    const failure = failureOf(action);
    if (failure !== undefined && closed.has(actor)) reply = refusal(FAILURES[failure]);
    else if (failure === undefined && changes(action)) text += actor;
    else if (action === "answer") reply = answer(actor, 210);
    else if (action === "refuse") reply = { ...refusal("TM_UNAUTHORIZED"), status: 451, from: "plugin" };
    else if (action === "leave") gone = true;
    if (reply !== undefined) {
      entered = ACTORS.slice(0, index);
      break;
    }
  }
  let attempts: readonly ExpectedAttempt[] = [];
  if (reply === undefined) {
    if (gone) reply = refusal("TM_CLIENT_GONE");
    else {
      const driven = drive(plan, closed, text, winner);
      ({ attempts, answeredBy } = driven);
      reply = driven.reply;
      if (reply === undefined) {
        // The client leaves while a provider is silent.
        gone = true;
        reply = refusal("TM_CLIENT_GONE");
      }
    }
  }
  const response: Actor[] = [];
  for (const actor of entered.toReversed()) {
    if (actor === answeredBy) continue;
    response.push(actor);
    reply = respond(reply, actor, plan, closed);
  }
  const body = reply.events === undefined ? reply.body : bytesOf(reply.events);
  const common = {
    body,
    provider: reply.provider === undefined ? undefined : providerName(reply.provider),
    tags: reply.tags,
    request,
    attempts,
    response,
  };
  if (gone) return { ...common, kind: "aborted", code: "TM_CLIENT_GONE", status: undefined, whole: false };
  const { status } = reply;
  if (reply.stalls) return { ...common, kind: "aborted", code: "TM_CLIENT_GONE", status, whole: false };
  if (reply.cut !== undefined) {
    // A transform that fails in the middle of a chunk takes what came in it along.
    return { ...common, kind: "partial", code: reply.cut, status, whole: reply.cut === "TM_UPSTREAM_CUT" };
  }
  if (reply.code !== undefined) return { ...common, kind: "refused", code: reply.code, status, whole: true };
  return { ...common, kind: "answered", code: undefined, status, whole: true };
}

const STATUS: Readonly<Record<string, number>> = {
  TM_UNAUTHORIZED: 451,
  TM_NO_PROVIDER: 404,
  TM_ALL_SKIPPED: 503,
  TM_UPSTREAM_RESET: 502,
  TM_CLIENT_GONE: 499,
};
function refusal(code: string): ModelReply {
  return {
    status: STATUS[code] ?? 500,
    from: "kernel",
    provider: undefined,
    code,
    body: undefined,
    events: undefined,
    cut: undefined,
    stalls: false,
    tags: [],
  };
}
function answer(actor: Actor, status: number): ModelReply {
  return { ...refusal(""), status, from: "plugin", code: undefined, body: `${status} by ${actor}` };
}
function bytesOf(events: readonly string[]): string {
  return events.map((data) => `data: ${data}\n\n`).join("");
}

/** `reply` is undefined where the client leaves before there is one. */
interface Driven {
  readonly reply: ModelReply | undefined;
  readonly attempts: readonly ExpectedAttempt[];
  readonly answeredBy: Actor | undefined;
}

function drive(plan: Plan, closed: Closed, text: string, winner: number | undefined): Driven {
  const attempts: ExpectedAttempt[] = [];
  let kept: ModelReply | undefined;
  let lastError: string | undefined;
  for (const [index, behaviour] of plan.providers.entries()) {
    const judged = before(plan, closed, attempts.length);
    const attempt = (result: ExpectedAttempt["result"], sent = true): void => {
      const body = sent ? requestBody(text, judged.alias) : undefined;
      attempts.push({ provider: index, before: judged.ran, result, sent: body, tags: judged.tags });
    };
    if (judged.answer !== undefined) {
      attempt("skipped", false);
      return { reply: judged.answer, attempts, answeredBy: judged.by };
    }
    if (judged.skipped) {
      attempt("skipped", false);
      continue;
    }
    if (plan.policy === "hedge") {
      // Who wins, and how far the other one came, was a matter of chance.
      attempt(index === winner ? "reply" : "cancelled");
      if (index === winner) kept = replyOf(plan, index, behaviour);
      continue;
    }
    if (behaviour === "silent") {
      attempt("cancelled");
      return { reply: undefined, attempts, answeredBy: undefined };
    }
    if (behaviour === "reset" || behaviour === "local-throw") {
      attempt("error");
      lastError = behaviour === "reset" ? "TM_UPSTREAM_RESET" : "TM_INTERNAL";
      if (plan.policy === "none") break;
      continue;
    }
    attempt("reply");
    const reply = replyOf(plan, index, behaviour);
    const refused = behaviour === "error" || (behaviour === "first-error" && plan.policy === "hold");
    if (plan.policy === "none" || !refused) return { reply, attempts, answeredBy: undefined };
    kept = reply;
  }
  const failed = lastError ?? (attempts.length > 0 ? "TM_ALL_SKIPPED" : "TM_NO_PROVIDER");
  return { reply: kept ?? refusal(failed), attempts, answeredBy: undefined };
}

function before(plan: Plan, closed: Closed, attempt: number) {
  const ran: Actor[] = [];
  const tags: Actor[] = [];
  let alias = "-";
  for (const actor of ACTORS) {
    const action = plan.before[attempt]![actor];
    ran.push(actor);
    const failure = failureOf(action);
    const common = { ran, tags, alias, by: actor };
    if (failure !== undefined && closed.has(actor))
      return { ...common, skipped: false, answer: refusal(FAILURES[failure]) };
    if (action === "skip") return { ...common, skipped: true, answer: undefined };
    if (action === "answer") return { ...common, skipped: false, answer: answer(actor, 211) };
    if (failure === undefined && changes(action)) {
      alias = actor;
      tags.push(actor);
    }
  }
  return { ran, tags, alias, by: undefined, skipped: false, answer: undefined };
}

function replyOf(plan: Plan, index: number, behaviour: Behaviour): ModelReply {
  const reply: ModelReply = {
    ...refusal(""),
    status: 200,
    from: "provider",
    provider: index,
    code: undefined,
  };
  if (behaviour === "error") return { ...reply, status: 500, body: ERROR_BODY };
  const cut = behaviour === "cut" || behaviour === "local-cut" ? "TM_UPSTREAM_CUT" : undefined;
  if (!plan.stream) {
    const body = bodyOf(plan, index);
    return { ...reply, cut, body: cut === undefined ? body : body.slice(0, CUT_BYTES) };
  }
  const events = eventsOf(plan, index, behaviour);
  if (behaviour === "stall") return { ...reply, stalls: true, events: events.slice(0, STALL_AFTER) };
  return { ...reply, cut, events: cut === undefined ? events : events.slice(0, CUT_AFTER) };
}

function respond(reply: ModelReply, actor: Actor, plan: Plan, closed: Closed): ModelReply {
  const action = plan.response[actor];
  const { events } = reply;
  // A body that does not come whole cannot be read.
  const unreadable = action === "read" && events === undefined && reply.cut !== undefined;
  const failure = unreadable ? "reject" : failureOf(action);
  if (failure !== undefined) return closed.has(actor) ? refusal(FAILURES[failure]) : reply;
  if (action === "replace") return { ...answer(actor, 212), tags: [actor] };
  if (changes(action)) return { ...reply, tags: [...reply.tags, actor] };
  if (action === "body" && events === undefined)
    return { ...reply, body: `body by ${actor}`, cut: undefined };
  if (action === "map" && events !== undefined)
    return { ...reply, events: events.map((data) => data + actor) };
  if (action === "map-throw" && events !== undefined) {
    const mapped = events.map((data, index) => (index < MAP_FAILS_AT ? data + actor : data));
    if (!closed.has(actor) || events.length <= MAP_FAILS_AT) return { ...reply, events: mapped };
    return { ...reply, events: mapped.slice(0, MAP_FAILS_AT), cut: "TM_PLUGIN_FAILED", stalls: false };
  }
  return reply;
}
