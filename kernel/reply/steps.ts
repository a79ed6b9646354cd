import {
  type EventTransform,
  type ReplyObserver,
  SseEvent,
  SseSplitter,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import type { PluginHandle } from "../hooks/plugin-handle.ts";
import type { ShareBuffer } from "./share.ts";

/** What plugins attached to a reply's body, in the order in which they did. */
export type Step =
  | {
      readonly kind: "map";
      readonly plugin: PluginHandle | undefined;
      readonly transform: EventTransform;
      bypassed: boolean;
    }
  | {
      readonly kind: "observe";
      readonly plugin: PluginHandle | undefined;
      readonly observer: ReplyObserver;
      bypassed: boolean;
    }
  | { readonly kind: "share"; readonly share: ShareBuffer };

/** Tells a step's plugin of a failure of its observer, and takes the observer out: it must not hurt the client. */
export function observerFailed(step: Extract<Step, { kind: "observe" }>, cause: unknown): void {
  step.bypassed = true;
  step.plugin?.failed("observer", cause);
}

/**
 * Runs events through a list of steps. Unchanged events keep their very bytes. What a step puts out as bytes is cut
 * into events again only where a later step wants events.
 */
export class EventChain {
  readonly #steps: readonly Step[];
  readonly #splitters: (SseSplitter | undefined)[];
  readonly #out: Buffer[] = [];
  readonly #splitter = new SseSplitter();

  constructor(steps: readonly Step[]) {
    this.#steps = steps;
    this.#splitters = steps.map(() => undefined);
  }

  /** The bytes that go on after this chunk. Throws TM_PLUGIN_FAILED where a closed transform failed. */
  push(chunk: Buffer): readonly Buffer[] {
    this.#splitter.push(chunk, this.#first);
    return this.#take();
  }
  /** What was held back, at a regular end. */
  flush(): readonly Buffer[] {
    return this.#drain(true);
  }
  /** The bytes held back of an event that will never be whole; the transforms are not asked for theirs. */
  rest(): readonly Buffer[] {
    return this.#drain(false);
  }

  #drain(isRegular: boolean): readonly Buffer[] {
    const rest = this.#splitter.flush(this.#first);
    for (let index = 0; index < this.#steps.length; index++) {
      const step = this.#steps[index]!;
      const remainder = this.#splitters[index]?.flush((event) => this.#event(event, index));
      if (remainder != null) this.#raw(remainder, index);
      if (!isRegular || step.kind !== "map" || step.bypassed || step.transform.flush === undefined) continue;
      try {
        const last = step.transform.flush();
        if (last !== undefined && last.length > 0) this.#bytes(last, index + 1);
      } catch (cause) {
        this.#mapFailed(step, cause);
      }
    }
    // Behind what the transforms held back, which came before it.
    if (rest !== null) this.#raw(rest, 0);
    return this.#take();
  }

  readonly #first = (event: SseEvent): void => this.#event(event, 0);

  #take(): readonly Buffer[] {
    return this.#out.splice(0, this.#out.length);
  }
  /** An event arrives at step `from`. */
  #event(event: SseEvent, from: number): void {
    for (let index = from; index < this.#steps.length; index++) {
      const step = this.#steps[index]!;
      if (step.kind === "share") step.share.push(event.raw);
      else if (step.bypassed) continue;
      else if (step.kind === "observe") {
        try {
          step.observer.data?.(event.raw);
          step.observer.event?.(event);
        } catch (cause) {
          observerFailed(step, cause);
        }
      } else {
        let mapped: ReturnType<EventTransform["event"]>;
        try {
          mapped = step.transform.event(event);
          checkMapped(mapped);
        } catch (cause) {
          this.#mapFailed(step, cause);
          continue;
        }
        if (mapped === undefined) return;
        // Behind bytes that a transform wrote, which may end within an event, everything is bytes.
        if (mapped === event && this.#splitters[index + 1] === undefined) continue;
        for (const piece of Array.isArray(mapped) ? mapped : [mapped]) {
          if (!(piece instanceof SseEvent)) this.#bytes(piece as Buffer, index + 1);
          else if (this.#splitters[index + 1] !== undefined) this.#bytes(piece.raw, index + 1);
          else this.#event(piece, index + 1);
        }
        return;
      }
    }
    this.#out.push(event.raw);
  }
  /** Bytes that a transform wrote arrive at step `from`. */
  #bytes(bytes: Buffer, from: number): void {
    if (from >= this.#steps.length) {
      this.#out.push(bytes);
      return;
    }
    this.#splitters[from] ??= new SseSplitter();
    this.#splitters[from].push(bytes, (event) => this.#event(event, from));
  }
  /** Bytes that form no event (a cut last event) pass all transforms untouched. */
  #raw(bytes: Buffer, from: number): void {
    for (let index = from; index < this.#steps.length; index++) {
      const step = this.#steps[index]!;
      if (step.kind === "share") step.share.push(bytes);
      else if (step.kind === "observe" && !step.bypassed) {
        try {
          step.observer.data?.(bytes);
        } catch (cause) {
          observerFailed(step, cause);
        }
      }
    }
    this.#out.push(bytes);
  }
  #mapFailed(step: Extract<Step, { kind: "map" }>, cause: unknown): void {
    step.bypassed = true;
    step.plugin?.failed("mapEvents", cause);
    for (const later of this.#steps.slice(this.#steps.indexOf(step)))
      if (later.kind === "share") later.share.spoiled = true;
    if (step.plugin?.onError === "closed") {
      throw new TokenmanError("TM_PLUGIN_FAILED", `${step.plugin.name} failed in the middle of a stream`, {
        cause,
        plugin: step.plugin.name,
        hook: "mapEvents",
      });
    }
  }
}

function checkMapped(mapped: unknown): void {
  const pieces = Array.isArray(mapped) ? mapped : [mapped];
  for (const piece of pieces) {
    if (piece === undefined && !Array.isArray(mapped)) continue;
    if (piece instanceof SseEvent || Buffer.isBuffer(piece)) continue;
    throw new TypeError(
      `a transform's event() returned ${piece === null ? "null" : typeof piece}, not an SseEvent, a Buffer, a list of them or undefined`,
    );
  }
}
