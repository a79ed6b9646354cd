import { countOf, type JsonNode, parsedOf, type SseEvent, textOf } from "@tokenman/plugin-sdk";
import { type Assembler, dataOf, Literal, UnkeepableError, withMembers } from "./assembler.ts";

/** Of each kind of delta, the member that it carries and adds to. Source: Anthropic's streaming documentation. */
const STRING_DELTAS: Readonly<Record<string, string>> = {
  text_delta: "text",
  thinking_delta: "thinking",
  signature_delta: "signature",
  compaction_delta: "content",
};

/** Puts together the assistant's message of a Messages stream, block by block. */
export class MessageAssembler implements Assembler {
  readonly #blocks: Block[] = [];

  event(event: SseEvent): void {
    if (!event.event.startsWith("content_block_") && event.event !== "message") return;
    const data = dataOf(event);
    if (data === undefined) return;
    const index = countOf(parsedOf(data.get("index")));
    switch (textOf(data.get("type"))) {
      case "content_block_start": {
        const start = data.get("content_block");
        if (index === undefined || start?.kind !== "object")
          throw new UnkeepableError("a block of the reply has no beginning that is understood");
        this.#blocks[index] = new Block(start);
        return;
      }
      case "content_block_delta": {
        const block = index === undefined ? undefined : this.#blocks[index];
        const delta = data.get("delta");
        if (block === undefined || delta === undefined)
          throw new UnkeepableError("a part of the reply belongs to no block");
        block.add(delta);
        return;
      }
    }
  }
  finish(): readonly string[] {
    const blocks = this.#blocks.flatMap((block) => block.finish() ?? []);
    // The API refuses a message of no content; there is nothing to be said of one.
    return blocks.length === 0 ? [] : [`{"role":"assistant","content":[${blocks.join(",")}]}`];
  }
}

class Block {
  readonly #start: JsonNode;
  readonly #strings = new Map<string, Literal>();
  readonly #citations: string[] = [];
  #input: string | undefined;

  constructor(start: JsonNode) {
    this.#start = start;
  }
  add(delta: JsonNode): void {
    const type = textOf(delta.get("type")) ?? "";
    const name = Object.hasOwn(STRING_DELTAS, type) ? STRING_DELTAS[type] : undefined;
    if (name !== undefined) {
      let literal = this.#strings.get(name);
      if (literal === undefined) {
        literal = new Literal();
        // A signature comes whole, in the place of whatever the block began with.
        if (name !== "signature") literal.add(this.#start.get(name));
        this.#strings.set(name, literal);
      }
      literal.add(delta.get(name));
    } else if (type === "input_json_delta") {
      this.#input = (this.#input ?? "") + (textOf(delta.get("partial_json")) ?? "");
    } else if (type === "citations_delta") {
      const citation = delta.get("citation");
      if (citation !== undefined) this.#citations.push(citation.raw());
    } else throw new UnkeepableError(`the reply has parts of an unknown kind (${type})`);
  }
  /** The block as it goes back; undefined for an empty text, which the API refuses. */
  finish(): string | undefined {
    const values = new Map<string, string>();
    for (const [name, literal] of this.#strings) values.set(name, literal.json);
    if (this.#citations.length > 0) {
      const first =
        this.#start
          .get("citations")
          ?.items()
          .map((each) => each.raw()) ?? [];
      values.set("citations", `[${[...first, ...this.#citations].join(",")}]`);
    }
    if (this.#input !== undefined && this.#input.trim() !== "") values.set("input", checked(this.#input));
    if (textOf(this.#start.get("type")) === "text") {
      const text = this.#strings.get("text");
      if (text === undefined ? textOf(this.#start.get("text")) === "" : text.empty) return undefined;
    }
    return values.size === 0 ? this.#start.raw() : withMembers(this.#start, values);
  }
}

/** The input of a tool as the model spelled it. */
function checked(input: string): string {
  try {
    JSON.parse(input);
    return input;
  } catch {
    throw new UnkeepableError("the input of a tool call was cut off");
  }
}
