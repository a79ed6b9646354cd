import { type BodyEnd, TokenmanError } from "@tokenman/plugin-sdk";
import type { Cancellation } from "../cancellation.ts";
import { StreamDecoder } from "./codec.ts";
import { Copy, tellEnd } from "./copy.ts";
import type { ShareBuffer } from "./share.ts";
import type { BodySink, BodySource } from "./source.ts";
import { EventChain, type Step } from "./steps.ts";

/** How far a client may lag behind others that share its reply before it slows them. */
const MAX_LAG_BYTES = 4 * 1024 * 1024;

export interface FlowOptions {
  readonly coding: string | undefined;
  readonly streaming: boolean;
  /** How many decoded bytes observers see at the most. */
  readonly maxCopyBytes: number;
}

/**
 * A body on its way through the steps attached to it. Itself a source, so that flows can follow one another. Three
 * ways, chosen once at the start: a plain pipe; bytes straight on with a decoded copy for the observers; or, where a
 * step rewrites events, decoded events through the chain.
 */
export class Flow implements BodySource, BodySink {
  readonly #source: BodySource;
  readonly #steps: readonly Step[];
  readonly #options: FlowOptions;
  #sink: BodySink | undefined;
  #copy: Copy | undefined;
  #chain: EventChain | undefined;
  /** Those who share the bytes as they come from the source. */
  #shares: readonly ShareBuffer[] = NONE;
  #decoder: StreamDecoder | undefined;
  #trailers: readonly string[] | undefined;
  #sinkPaused = false;
  #decoderFull = false;
  #over = false;
  #onDone: ((end: BodyEnd) => void) | undefined;
  #doneAs: BodyEnd | undefined;
  #cutBy: TokenmanError | undefined;

  constructor(source: BodySource, steps: readonly Step[], options: FlowOptions) {
    this.#source = source;
    this.#steps = steps;
    this.#options = options;
  }

  start(sink: BodySink): void {
    if (this.#over) return;
    this.#sink = sink;
    if (this.#steps.length > 0) this.#prepare();
    this.#source.start(this);
  }
  #prepare(): void {
    const { coding, streaming, maxCopyBytes } = this.#options;
    const firstMap = this.#steps.findIndex((step) => step.kind === "map");
    // What is shared before the first rewrite are the source's own bytes, in their coding.
    this.#shares = sharesOf(firstMap < 0 ? this.#steps : this.#steps.slice(0, firstMap));
    for (const share of sharesOf(this.#steps)) share.host = this;
    if (firstMap >= 0) {
      this.#chain = new EventChain(
        this.#steps.filter((step, index) => step.kind !== "share" || index > firstMap),
      );
      if (coding !== undefined) this.#decode(coding);
    } else if (this.#steps.some((step) => step.kind === "observe")) {
      this.#copy = new Copy(this.#steps, coding, streaming, maxCopyBytes);
    }
  }
  pause(): void {
    this.#sinkPaused = true;
    this.#regulate();
  }
  resume(): void {
    this.#sinkPaused = false;
    this.#regulate();
  }
  /** The consumer leaves. Those who share the body keep it going. */
  abort(): void {
    this.#sink = undefined;
    this.#sinkPaused = false;
    if (this.#shared()) this.#regulate();
    else this.#stop("aborted");
  }
  /** The consumer has gone, and nobody takes its place: the body goes on until `unwanted` tells that it need not. */
  leave(unwanted: Cancellation): void {
    if (!unwanted.cancelled) this.resume();
    unwanted.onCancel(() => this.abort());
  }
  /** Calls back once the source has ended and every observer was told. */
  whenDone(callback: (end: BodyEnd) => void): void {
    if (this.#doneAs !== undefined) callback(this.#doneAs);
    else this.#onDone = callback;
  }

  /** From the source, as `end` and `fail` are. */
  data(chunk: Buffer): void {
    if (this.#over) return;
    for (const share of this.#shares) share.push(chunk);
    if (this.#decoder !== undefined) {
      if (!this.#decoder.write(chunk)) {
        this.#decoderFull = true;
        this.#regulate();
      }
    } else if (this.#chain !== undefined) this.#events(chunk);
    else {
      this.#copy?.push(chunk);
      this.#sink?.data(chunk);
      // A client that was allowed to lag may have lagged enough.
      if (this.#sinkPaused) this.#regulate();
    }
  }
  #events(chunk: Buffer): void {
    try {
      this.#put(this.#chain!.push(chunk), chunk);
    } catch (error) {
      this.#fail(error as TokenmanError, "failed");
      return;
    }
    if (this.#sinkPaused) this.#regulate();
  }
  /** One write a chunk: an unchanged chunk goes on as it is, several pieces are joined. */
  #put(pieces: readonly Buffer[], chunk?: Buffer): void {
    if (pieces.length === 0) return;
    if (pieces.length === 1) this.#sink?.data(pieces[0]!);
    else if (chunk !== undefined && isWhole(pieces, chunk)) this.#sink?.data(chunk);
    else this.#sink?.data(Buffer.concat(pieces as Buffer[]));
  }
  end(trailers: readonly string[] | undefined): void {
    if (this.#over) return;
    this.#trailers = trailers;
    if (this.#decoder !== undefined) this.#decoder.end();
    else this.#ended();
  }
  #ended(): void {
    if (this.#over) return;
    if (this.#chain !== undefined) {
      try {
        this.#put(this.#chain.flush());
      } catch (error) {
        this.#fail(error as TokenmanError, "failed");
        return;
      }
    }
    this.#over = true;
    for (const step of this.#steps) {
      if (step.kind === "share") step.share.end(this.#trailers);
      else if (!step.bypassed) step.plugin?.succeeded(step.kind === "map" ? "mapEvents" : "observer");
    }
    const sink = this.#sink;
    this.#sink = undefined;
    sink?.end(this.#trailers);
    this.#finish("complete");
  }
  /** The source broke: what a decoder still holds goes on first. */
  fail(error: TokenmanError): void {
    if (this.#over) return;
    this.#cutBy = error;
    if (this.#decoder !== undefined) this.#decoder.cut(() => this.#broken(error));
    else this.#broken(error);
  }
  /** The bytes so far leave, those of an event that will never be whole included. */
  #broken(error: TokenmanError): void {
    if (this.#over) return;
    if (this.#chain !== undefined) {
      try {
        this.#put(this.#chain.rest());
      } catch (failure) {
        this.#fail(failure as TokenmanError, "failed");
        return;
      }
    }
    this.#fail(error, "upstream-cut");
  }
  #fail(error: TokenmanError, end: BodyEnd): void {
    if (this.#over) return;
    this.#over = true;
    if (end === "failed") this.#source.abort();
    this.#decoder?.destroy();
    for (const share of sharesOf(this.#steps)) share.fail(error);
    const sink = this.#sink;
    this.#sink = undefined;
    sink?.fail(error);
    this.#finish(end);
  }
  #stop(end: BodyEnd): void {
    if (this.#over) return;
    this.#over = true;
    this.#source.abort();
    this.#decoder?.destroy();
    // Nobody follows at present, and nobody must begin to: there is no more to come.
    for (const share of sharesOf(this.#steps)) share.fail(new TokenmanError("TM_CLIENT_GONE"));
    this.#finish(end);
  }
  /** From a share: nobody follows it any more. */
  unfollowed(): void {
    if (this.#sink === undefined) this.#stop("aborted");
  }
  #finish(end: BodyEnd): void {
    const told = (): void => {
      this.#doneAs = end;
      this.#onDone?.(end);
    };
    if (this.#copy !== undefined) this.#copy.finish(end, told);
    else {
      for (const step of this.#steps) if (step.kind === "observe") tellEnd(step, end, false);
      told();
    }
  }
  /** A slow client slows the source, unless others share the body: then its own socket buffers, up to a bound. */
  #regulate(): void {
    if (this.#over) return;
    const wait = this.#sinkPaused && !this.#mayLag();
    // A small coded chunk may decode to a very large one, so the decoder waits for the client too.
    if (wait) this.#decoder?.pause();
    else this.#decoder?.resume();
    if (wait || this.#decoderFull) this.#source.pause();
    else this.#source.resume();
  }
  #mayLag(): boolean {
    if (!this.#shared()) return false;
    return (this.#sink?.buffered?.() ?? 0) < MAX_LAG_BYTES;
  }
  #shared(): boolean {
    return this.#steps.some((step) => step.kind === "share" && step.share.wanted);
  }
  #decode(coding: string): void {
    this.#decoder = new StreamDecoder(coding, {
      data: (chunk) => {
        if (!this.#over) this.#events(chunk);
      },
      drain: () => {
        this.#decoderFull = false;
        this.#regulate();
      },
      end: () => this.#ended(),
      fail: (cause) => {
        // A cut coded stream ends in the middle of a block: the cut is what happened, not a broken coding.
        if (this.#cutBy !== undefined) this.#broken(this.#cutBy);
        else
          this.#fail(
            new TokenmanError("TM_UPSTREAM_CUT", `the reply's ${coding} coding is broken`, { cause }),
            "failed",
          );
      },
    });
  }
}

const NONE: readonly ShareBuffer[] = [];
function sharesOf(steps: readonly Step[]): readonly ShareBuffer[] {
  let shares: ShareBuffer[] | undefined;
  for (const step of steps) {
    if (step.kind !== "share") continue;
    shares ??= [];
    shares.push(step.share);
  }
  return shares ?? NONE;
}

function isWhole(pieces: readonly Buffer[], chunk: Buffer): boolean {
  let at = chunk.byteOffset;
  for (const piece of pieces) {
    if (piece.buffer !== chunk.buffer || piece.byteOffset !== at) return false;
    at += piece.length;
  }
  return at === chunk.byteOffset + chunk.length;
}
