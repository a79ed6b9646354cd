import { TokenmanError } from "@tokenman/plugin-sdk";
import type { BodySink, BodySource, Finish } from "./source.ts";

/**
 * The replay buffer of a shared reply. The bytes are kept once, however many follow: each follower is a position in
 * them. Past `maxBytes` nobody can join any more; those who follow go on, and one that lags by more than `maxBytes` is
 * cut visibly.
 */
export class ShareBuffer {
  readonly #maxBytes: number;
  #chunks: Buffer[] = [];
  /** Number of the first kept chunk, and how many bytes are kept. */
  #firstChunk = 0;
  #bytes = 0;
  #finish: Finish | undefined;
  /** Made for the first one: most replies that can be shared are not. */
  #followers: Set<Follower> | undefined;
  /** A rewrite attached before failed: the bytes behind it are not what they should be. */
  spoiled = false;
  /**
   * Told when the last follower left. An object and not a callback: a closure a reply in this place made V8 keep much of
   * the garbage through its scavenges (measured: 10 KB a request).
   */
  host: { unfollowed(): void } | undefined;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }
  get wanted(): boolean {
    return (this.#followers?.size ?? 0) > 0;
  }
  get joinable(): boolean {
    return (
      this.#firstChunk === 0 &&
      this.#bytes <= this.#maxBytes &&
      !(this.#finish !== undefined && "error" in this.#finish)
    );
  }
  /** All bytes, once the body came to its regular end; undefined where some are gone, or spoiled. */
  whole(): Buffer | undefined {
    const finish = this.#finish;
    if (finish === undefined || "error" in finish || (finish.trailers?.length ?? 0) > 0) return undefined;
    if (this.spoiled || !this.joinable) return undefined;
    return this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks, this.#bytes);
  }
  get nextChunk(): number {
    return this.#firstChunk + this.#chunks.length;
  }
  chunk(index: number): Buffer | undefined {
    return this.#chunks[index - this.#firstChunk];
  }
  get finish(): Finish | undefined {
    return this.#finish;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#followers !== undefined) for (const follower of this.#followers) follower.catchUp();
    if (this.#bytes > this.#maxBytes) this.#trim();
  }
  end(trailers: readonly string[] | undefined): void {
    this.#finish = { trailers };
    this.#catchUp();
  }
  fail(error: TokenmanError): void {
    this.#finish ??= { error };
    this.#catchUp();
  }
  join(): BodySource {
    const follower = new Follower(this);
    this.#followers ??= new Set();
    this.#followers.add(follower);
    return follower;
  }
  leave(follower: Follower): void {
    if (this.#followers?.delete(follower) === true && !this.wanted) this.host?.unfollowed();
  }

  #catchUp(): void {
    if (this.#followers === undefined) return;
    for (const follower of [...this.#followers]) follower.catchUp();
  }

  /** Drops what every follower has had. */
  #trim(): void {
    const followers = [...(this.#followers ?? [])];
    let slowest = this.nextChunk;
    for (const follower of followers) slowest = Math.min(slowest, follower.position);
    while (this.#firstChunk < slowest) {
      this.#bytes -= this.#chunks.shift()!.length;
      this.#firstChunk++;
    }
    if (this.#bytes <= this.#maxBytes) return;
    for (const follower of followers) {
      if (follower.position === this.#firstChunk) {
        follower.cut(
          new TokenmanError("TM_CLIENT_STALLED", "a follower of a shared reply lagged behind its buffer"),
        );
      }
    }
  }
}

class Follower implements BodySource {
  readonly #share: ShareBuffer;
  position = 0;
  #sink: BodySink | undefined;
  #paused = false;
  #busy = false;
  #cutBy: TokenmanError | undefined;

  constructor(share: ShareBuffer) {
    this.#share = share;
  }
  start(sink: BodySink): void {
    if (this.#cutBy !== undefined) {
      sink.fail(this.#cutBy);
      return;
    }
    this.#sink = sink;
    this.catchUp();
  }
  pause(): void {
    this.#paused = true;
  }
  resume(): void {
    this.#paused = false;
    this.catchUp();
  }
  abort(): void {
    this.#sink = undefined;
    this.#share.leave(this);
  }
  /** It may not have started yet: then it fails when it does. */
  cut(error: TokenmanError): void {
    const sink = this.#sink;
    this.#cutBy = error;
    this.abort();
    sink?.fail(error);
  }
  catchUp(): void {
    // A sink may pause, resume or abort from within data(); the loop re-reads the state instead of nesting.
    if (this.#busy) return;
    this.#busy = true;
    try {
      while (this.#sink !== undefined && !this.#paused) {
        const chunk = this.#share.chunk(this.position);
        if (chunk === undefined) break;
        this.position++;
        this.#sink.data(chunk);
      }
    } finally {
      this.#busy = false;
    }
    const finish = this.#share.finish;
    if (this.#sink === undefined || finish === undefined || this.position < this.#share.nextChunk) return;
    const sink = this.#sink;
    this.#sink = undefined;
    this.#share.leave(this);
    if ("error" in finish) sink.fail(finish.error);
    else sink.end(finish.trailers);
  }
}
