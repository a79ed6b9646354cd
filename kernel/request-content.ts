import {
  type Dialect,
  type JsonNode,
  type JsonPatch,
  type RequestDescription,
  type Segment,
  type SegmentSpan,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import type { AttemptState } from "./attempt.ts";
import { Edits } from "./edits.ts";
import type { ExchangeState } from "./exchange.ts";
import type { PluginHandle } from "./hooks/plugin-handle.ts";
import { SegmentState } from "./segment.ts";

/** The body of an exchange's request, as its dialect reads it and plugins change it. All of it is worked out at first use. */
export class RequestContent {
  readonly #exchange: ExchangeState;
  #description: { value: RequestDescription | undefined } | undefined;
  #spans: readonly SegmentSpan[] | undefined;
  #segments: readonly Segment[] | undefined;
  #sealed: ReadonlySet<string> | undefined;
  #edits: Edits | undefined;
  #edited: Buffer | undefined;

  constructor(exchange: ExchangeState) {
    this.#exchange = exchange;
  }

  get description(): RequestDescription | undefined {
    if (this.#description === undefined) {
      const { body } = this.#exchange.request;
      const value =
        body === undefined || body.length === 0
          ? undefined
          : this.ofDialect("describe", (dialect) => dialect.describe(body));
      this.#description = { value };
    }
    return this.#description.value;
  }
  get spans(): readonly SegmentSpan[] {
    if (this.#spans === undefined) {
      const { body } = this.#exchange.request;
      const spans =
        body === undefined ? undefined : this.ofDialect("segments", (dialect) => dialect.segments(body));
      this.#spans = spans ?? [];
    }
    return this.#spans;
  }
  get segments(): readonly Segment[] {
    this.#segments ??= this.spans.map((span) => this.segmentOf(span));
    return this.#segments;
  }
  segmentOf(span: SegmentSpan): Segment {
    return new SegmentState(span, this.editableBody(), this.#editable());
  }
  read(pointer: string): unknown {
    try {
      return this.node(pointer)?.value();
    } catch {
      return undefined;
    }
  }
  node(pointer: string): JsonNode | undefined {
    const { body } = this.#exchange.request;
    if (body === undefined || body.length === 0) return undefined;
    try {
      return this.#editable().root.find(pointer);
    } catch {
      return undefined;
    }
  }
  stands(pointer: string): boolean {
    return this.#edits?.stands(pointer) ?? true;
  }
  edit(segment: Segment, text: string, plugin: PluginHandle): void {
    this.#editable().setText(segment, text, plugin);
    this.#edited = undefined;
  }
  patch(patches: readonly JsonPatch[], plugin: PluginHandle): void {
    this.assertUnsealed(patches);
    this.#editable().patch(patches, plugin);
    this.#edited = undefined;
  }
  get edited(): boolean {
    return (this.#edits?.count ?? 0) > 0;
  }
  mark(): number {
    return this.#edits?.count ?? 0;
  }
  rollback(mark: number): void {
    this.#edits?.rollback(mark);
    this.#edited = undefined;
  }
  /** The decoded body that edits refer to. Throws TM_EDIT_IMPOSSIBLE where there is none. */
  editableBody(): Buffer {
    const { body } = this.#exchange.request;
    if (body === undefined)
      throw new TokenmanError("TM_EDIT_IMPOSSIBLE", "the request's body cannot be read here");
    return body;
  }
  /** Throws TM_SEGMENT_SEALED where a patch changes what is signed. What holds it may go as a whole. */
  assertUnsealed(patches: readonly JsonPatch[]): void {
    for (const { pointer } of patches) {
      // A member of the body itself is no segment's part.
      for (let end = pointer.indexOf("/", 1); end >= 0; ) {
        end = pointer.indexOf("/", end + 1);
        const at = end < 0 ? pointer : pointer.slice(0, end);
        if (this.#sealedPointers.has(at))
          throw new TokenmanError("TM_SEGMENT_SEALED", `${at} is signed and must not be changed`);
      }
    }
  }
  get #sealedPointers(): ReadonlySet<string> {
    this.#sealed ??= new Set(this.spans.filter(({ sealed }) => sealed).map(({ pointer }) => pointer));
    return this.#sealed;
  }
  /** An attempt's own edits, to come over those of the exchange. */
  editsOver(): Edits {
    return new Edits(this.editableBody(), this.#exchange.id, this.#editable());
  }
  /** The body to send with an attempt, and whether it differs from what the client sent. */
  outgoingBody(attempt: AttemptState): { readonly body: Buffer; readonly edited: boolean } {
    const raw = this.#exchange.request.rawBody ?? EMPTY;
    const own = attempt.edits;
    const ownEdits = own !== undefined && own.count > 0;
    if (!this.edited && !ownEdits) return { body: raw, edited: false };
    if (!ownEdits) this.#edited ??= this.#editable().apply();
    const body = ownEdits ? this.#editable().apply(own) : this.#edited!;
    // Edits that change nothing, or were left out, leave the body as it came: in its Content-Encoding.
    return body === this.#exchange.request.body ? { body: raw, edited: false } : { body, edited: true };
  }

  /**
   * What the dialect says. One that throws, against its contract, says nothing: whoever asked is another plugin, and
   * must neither fail for it nor be blamed.
   */
  ofDialect<T>(what: string, ask: (dialect: Dialect) => T): T | undefined {
    const { dialect, home } = this.#exchange;
    if (dialect === undefined) return undefined;
    try {
      return ask(dialect);
    } catch (cause) {
      home.dialectFailed(dialect, what, cause);
      return undefined;
    }
  }
  #editable(): Edits {
    this.#edits ??= new Edits(this.editableBody(), this.#exchange.id);
    return this.#edits;
  }
}

const EMPTY = Buffer.alloc(0);
