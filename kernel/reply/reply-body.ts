import { TokenmanError } from "@tokenman/plugin-sdk";
import type { Cancellation } from "../cancellation.ts";
import { decodeBody } from "./codec.ts";
import { Flow, type FlowOptions } from "./flow.ts";
import { type BodySource, BufferSource, PushSource } from "./source.ts";
import type { Step } from "./steps.ts";

/** What `rollback` takes a body back to. */
export interface BodyMark {
  readonly source: BodySource;
  readonly stepCount: number;
  readonly replacedCount: number;
}

/** A body that was replaced, with what was attached to it. */
interface ReplacedBody {
  readonly source: BodySource;
  readonly steps: Step[];
  readonly options: FlowOptions;
  readonly whole: Promise<Buffer> | undefined;
}

/** What the head says of its body. */
interface BodyHead {
  readonly coding: string | undefined;
  readonly streaming: boolean;
}

/** Of a flow without steps, which asks for none of it. */
const PLAIN: FlowOptions = { coding: undefined, streaming: false, maxCopyBytes: 0 };

/** A reply's body: a source of bytes, and the steps that plugins attached to it. */
export class ReplyBody {
  readonly #head: BodyHead;
  readonly #maxBytes: number;
  /** Tells that nobody waits for the reply any more. */
  readonly #unwanted: Cancellation | undefined;
  #source: BodySource;
  #steps: Step[] = [];
  #whole: Promise<Buffer> | undefined;
  #decoded: Promise<Buffer> | undefined;
  /** Bodies that were replaced: they end when it is settled that they stay so. */
  #replaced: ReplacedBody[] = [];

  /** `maxBytes`: what is read into memory or copied for observers at the most; 0 is no limit. */
  constructor(head: BodyHead, source: BodySource, maxBytes: number, unwanted: Cancellation | undefined) {
    this.#head = head;
    this.#source = source;
    this.#maxBytes = maxBytes || Number.MAX_SAFE_INTEGER;
    this.#unwanted = unwanted;
  }

  attach(step: Step): void {
    this.#steps.push(step);
  }
  /** Whether a step rewrites it. */
  get rewritten(): boolean {
    return this.#steps.length > 0 && this.#steps.some((step) => step.kind === "map");
  }
  /** All of it, decoded. Rejects with TM_REPLY_TOO_LARGE, also where it does not decode. */
  read(): Promise<Buffer> {
    this.#decoded ??= this.#decode();
    return this.#decoded;
  }
  async #decode(): Promise<Buffer> {
    const { coding } = this.#head;
    this.#whole ??= this.#collect();
    const whole = await this.#whole;
    if (coding === undefined || whole.length === 0) return whole;
    const decoded = await decodeBody(whole, coding, this.#maxBytes);
    if (decoded === undefined) {
      throw new TokenmanError(
        "TM_REPLY_TOO_LARGE",
        `the reply's body does not decode as "${coding}" within server.max_response_size`,
      );
    }
    return decoded;
  }
  /** Observers attached before still see the body that is replaced. */
  replace(bytes: Buffer): void {
    const replaced = { source: this.#source, steps: this.#steps, options: this.#options, whole: this.#whole };
    this.#replaced.push(replaced);
    this.#whole = Promise.resolve(bytes);
    this.#decoded = undefined;
    this.#source = new BufferSource(bytes);
    this.#steps = [];
  }
  /** Holds it back, to be looked at before it is passed on. */
  hold(): PushSource {
    const source = this.#source;
    const held = new PushSource({ resume: () => source.resume(), abort: () => source.abort() });
    this.#source = held;
    pour(source, held);
    return held;
  }

  mark(): BodyMark {
    return {
      source: this.#source,
      stepCount: this.#steps.length,
      replacedCount: this.#replaced.length,
    };
  }
  /** Takes back what was attached and replaced since. What was read stays readable. */
  rollback(mark: BodyMark): void {
    const [original] = this.#replaced.splice(mark.replacedCount);
    if (original !== undefined) {
      this.#source = original.source;
      this.#steps = original.steps;
      this.#whole = original.whole;
      this.#decoded = undefined;
    }
    // Where it was read meanwhile, what was attached before it has gone into the reading.
    this.#steps.length = this.#source === mark.source ? mark.stepCount : 0;
  }

  /** Ready to start. Call once. */
  flow(): Flow {
    this.#endReplaced();
    return new Flow(this.#source, this.#steps, this.#steps.length === 0 ? PLAIN : this.#options);
  }
  /** It will not be sent. */
  discard(): void {
    this.#endReplaced();
    endBody(this.#source, this.#steps, this.#options);
  }

  get #options(): FlowOptions {
    const { coding, streaming } = this.#head;
    return { coding, streaming, maxCopyBytes: this.#maxBytes };
  }
  #endReplaced(): void {
    if (this.#replaced.length === 0) return;
    for (const { source, steps, options } of this.#replaced.splice(0)) endBody(source, steps, options);
  }
  /** Runs it through the steps so far into memory; later steps get it from there. */
  #collect(): Promise<Buffer> {
    const flow = new Flow(this.#source, this.#steps, this.#options);
    const origin = { resume: () => flow.resume(), abort: () => flow.abort() };
    const held = new PushSource(origin, this.#maxBytes + 1);
    this.#steps = [];
    this.#source = held;
    pour(flow, held);
    return new Promise<Buffer>((resolve, reject) => {
      held.peek(({ chunks, ended, full, error }) => {
        if (error !== undefined) reject(error);
        else if (ended) resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks as Buffer[]));
        else if (full) reject(new TokenmanError("TM_REPLY_TOO_LARGE"));
        return error !== undefined || ended || full;
      });
      // While a plugin reads, nobody else would tell the upstream that the client has left.
      this.#unwanted?.onCancel(() => {
        flow.abort();
        reject(new TokenmanError("TM_CLIENT_GONE"));
      });
    });
  }
}

/** Starts a source into one that holds it. */
function pour(source: BodySource, held: PushSource): void {
  source.start({
    data: (chunk) => {
      if (!held.push(chunk)) source.pause();
    },
    end: (trailers) => held.finish(trailers),
    fail: (error) => held.fail(error),
  });
}

/** Lets those who are attached to a body know that it is not wanted; whoever shares it keeps it going. */
function endBody(source: BodySource, steps: readonly Step[], options: FlowOptions): void {
  const flow = new Flow(source, steps, options);
  flow.start({ data() {}, end() {}, fail() {} });
  flow.abort();
}
