import {
  type AttemptPolicy,
  type Candidate,
  type ClientCredential,
  type Dialect,
  ERRORS,
  type ErrorCode,
  type Exchange,
  type ExchangeOrigin,
  type Format,
  type JsonNode,
  type JsonPatch,
  type Outcome,
  type ReplyInit,
  type RequestDescription,
  type Segment,
  type SegmentSpan,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import type { AttemptState } from "./attempt.ts";
import { Cancellation } from "./cancellation.ts";
import type { ExchangeEnd } from "./end.ts";
import type { Pipeline } from "./hooks/pipeline.ts";
import type { PluginHandle } from "./hooks/plugin-handle.ts";
import { type CallOwner, currentCall, type TapCall } from "./hooks/tap-call.ts";
import { uuidv7 } from "./id.ts";
import type { KeyedHash } from "./keyed-hash.ts";
import { markRefusal, type RefusalError } from "./reply/reply-init.ts";
import type { ReceivedRequest } from "./request.ts";
import { RequestContent } from "./request-content.ts";
import { Slots } from "./slots.ts";

/** What an exchange needs of the generation it began with; held until it is settled. */
export interface ExchangeHome {
  readonly pipeline: Pipeline;
  readonly policy: AttemptPolicy;
  readonly maxResponseBytes: number;
  /** How long a provider's stream may be silent where the provider itself sets no limit; 0 is for ever. */
  readonly streamIdleMs: number;
  readonly formats: readonly Format[];
  /** Keys the hash that tells credentials apart. */
  readonly hash: KeyedHash;
  release(): void;
  /** Tells that a dialect threw, which it must not. */
  dialectFailed(dialect: Dialect, what: string, cause: unknown): void;
}

/** One client request and all that happens to it. */
export class ExchangeState extends Slots implements Exchange, CallOwner {
  readonly id = uuidv7();
  readonly startedAt = Date.now();
  readonly project: string;
  readonly request: ReceivedRequest;
  readonly dialect: Dialect | undefined;
  readonly format: Format | undefined;
  readonly home: ExchangeHome;
  readonly content: RequestContent;
  /** The plugin that began it; undefined for a client's. */
  madeBy: ExchangeOrigin | undefined;
  /** From the moment it runs. */
  end: ExchangeEnd | undefined;
  /** Why the kernel broke it off, if it did. */
  cutBy: ErrorCode | undefined;
  candidates: readonly Candidate[] = [];
  ruledOut: Exchange["ruledOut"] = [];
  readonly attempts: AttemptState[] = [];
  /** Index of the plugin that answered: it and those after it do not see the reply. -1 before any was entered. */
  answeredAt = -1;
  /** The plugin that answered before an attempt, when all had seen the request: it does not see the reply either. */
  answeredBy: PluginHandle | undefined;
  usageTracked = false;
  /** When the last tap of the hook that runs ended, where hooks are timed. */
  tappedAt = 0;
  readonly #began = performance.now();
  readonly cancellation = new Cancellation();
  /** Calls of plugins that have not ended in the turn in which they began. */
  #calls: Set<TapCall> | undefined;
  #credential: { value: ClientCredential | undefined } | undefined;
  #credentialHash: string | undefined;
  #session: string | undefined;
  #clientGone = false;
  #retained = 0;
  #settled = false;

  constructor(options: {
    project: string;
    request: ReceivedRequest;
    dialect: Dialect | undefined;
    format: Format | undefined;
    home: ExchangeHome;
  }) {
    super();
    this.project = options.project;
    this.request = options.request;
    this.dialect = options.dialect;
    this.format = options.format;
    this.home = options.home;
    this.content = new RequestContent(this);
  }

  get maxResponseBytes(): number {
    return this.home.maxResponseBytes;
  }
  get description(): RequestDescription | undefined {
    return this.content.description;
  }
  get credential(): ClientCredential | undefined {
    this.#credential ??= { value: this.format?.credential(this.request.headers) };
    return this.#credential.value;
  }
  get credentialHash(): string {
    if (this.#credentialHash === undefined) {
      const secret = this.credential?.secret;
      this.#credentialHash = secret === undefined ? "" : this.home.hash.ofSecret(secret);
    }
    return this.#credentialHash;
  }
  get subscription(): boolean {
    return this.format?.isSubscription(this.request.headers) ?? false;
  }
  get noCompress(): boolean {
    const value = this.request.header("x-tokenman-nocompress");
    return value !== undefined && !/^(0|false|no)$/i.test(value.trim());
  }
  /** Sets what {@link session} says, before anybody asks. */
  named(session: string): void {
    this.#session = session;
  }
  get session(): string {
    this.#session ??= this.format?.sessionId(this.request.headers) ?? this.#derivedSession();
    return this.#session;
  }
  get spans(): readonly SegmentSpan[] {
    return this.content.spans;
  }
  get segments(): readonly Segment[] {
    return this.content.segments;
  }
  segmentOf(span: SegmentSpan): Segment {
    return this.content.segmentOf(span);
  }
  read(pointer: string): unknown {
    return this.content.read(pointer);
  }
  node(pointer: string): JsonNode | undefined {
    return this.content.node(pointer);
  }
  stands(pointer: string): boolean {
    return this.content.stands(pointer);
  }
  edit(segment: Segment, text: string): void {
    this.content.edit(segment, text, this.callOn("request").plugin);
  }
  patch(patches: readonly JsonPatch[]): void {
    this.content.patch(patches, this.callOn("request").plugin);
  }
  get edited(): boolean {
    return this.content.edited;
  }
  get signal(): AbortSignal {
    return this.cancellation.signal;
  }
  trackUsage(): void {
    this.usageTracked = true;
  }
  retain(): () => void {
    this.#retained++;
    let released = false;
    return () => {
      if (released) return;
      released = true;
      this.#retained--;
      this.#abortIfUnwanted();
    };
  }
  async wait<T>(promise: Promise<T>): Promise<T> {
    const calls = this.#waiting();
    let waits = true;
    for (const call of calls) call.hold();
    this.cancellation.onCancel(() => {
      // Observers of the end may wait for what they will: nobody's answer depends on them any more.
      if (waits && !this.#settled) for (const call of calls) call.waitInVain();
    });
    try {
      return await promise;
    } finally {
      waits = false;
      for (const call of calls) call.go();
    }
  }
  refuse(error: RefusalError): ReplyInit {
    const status = error.status ?? ERRORS[error.code].status;
    const full = { ...error, status };
    return markRefusal(this.#shaped(full), { code: error.code, message: error.message });
  }

  // What follows is the kernel's.

  enter(call: TapCall): void {
    this.#calls ??= new Set();
    this.#calls.add(call);
  }
  leave(call: TapCall): void {
    this.#calls?.delete(call);
  }
  /** The call of a hook in whose name something is changed. Throws TM_EDIT_IMPOSSIBLE where it is over, or no such runs. */
  callOn(hook: "request" | "beforeUpstream"): TapCall {
    const current = currentCall();
    const call =
      current?.exchangeId === this.id
        ? current
        : // A callback may have lost its way to the call that it belongs to.
          this.#calls?.values().find((each) => each.hook === hook);
    if (call !== undefined && call.hook === hook && !call.over) return call;
    const by = call === undefined ? "" : ` by ${call.plugin.name}'s ${call.hook} hook`;
    const late = call?.over === true ? ", which is over" : "";
    throw new TokenmanError(
      "TM_EDIT_IMPOSSIBLE",
      `changed${by}${late}: what a ${hook} hook changes, it changes while it runs`,
    );
  }
  get clientGone(): boolean {
    return this.#clientGone;
  }
  clientLeft(): void {
    this.#clientGone = true;
    this.#abortIfUnwanted();
  }
  attemptEnded(attempt: AttemptState): void {
    this.home.pipeline.attemptEnded(this, attempt);
  }
  elapsedMs(): number {
    return performance.now() - this.#began;
  }
  /** Tells the observers, once, and gives the generation back when they are done. */
  async settle(outcome: Outcome): Promise<void> {
    if (this.#settled) return;
    this.#settled = true;
    this.cancellation.cancel();
    try {
      const told = this.home.pipeline.settled(this, Object.freeze(outcome));
      if (told instanceof Promise) await told;
    } finally {
      this.home.release();
    }
  }

  #waiting(): readonly TapCall[] {
    const current = currentCall();
    if (current?.exchangeId === this.id) return [current];
    return this.#calls === undefined ? [] : [...this.#calls];
  }
  #shaped(error: RefusalError & { status: number }): ReplyInit {
    try {
      return this.format?.errorReply(error, this.id) ?? plainError(error);
    } catch {
      // A format is a plugin's. An error must come out all the same.
      return plainError(error);
    }
  }
  #abortIfUnwanted(): void {
    if (this.#clientGone && this.#retained === 0) this.cancellation.cancel();
  }
  #derivedSession(): string {
    const opening = this.content.ofDialect("opening", () => this.description?.opening);
    if (opening !== undefined) return this.home.hash.ofBeginning(this.credential?.secret ?? "", opening);
    const parts = [this.credentialHash];
    for (const segment of this.segments) {
      if (segment.role === "system") parts.push(segment.hash);
      else if (segment.role === "user") {
        parts.push(segment.hash);
        break;
      }
    }
    return this.home.hash.of(parts.join("\n"));
  }
}

/** The error shape where no vendor's is known. */
function plainError(error: RefusalError & { status: number }): ReplyInit {
  const body = JSON.stringify({ error: { code: error.code, message: error.message, ...error.details } });
  return {
    status: error.status,
    headers: ["content-type", "application/json", ...(error.headers ?? [])],
    body,
  };
}
