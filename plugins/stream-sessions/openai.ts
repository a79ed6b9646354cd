import { countOf, type JsonNode, parsedOf, type SseEvent, textOf } from "@tokenman/plugin-sdk";
import { type Assembler, dataOf, Literal, UnkeepableError } from "./assembler.ts";

/** Puts together the assistant's message of a Chat Completions stream: that of the first choice. */
export class ChatAssembler implements Assembler {
  readonly #content = new Literal();
  readonly #refusal = new Literal();
  readonly #calls: Call[] = [];
  #said = false;

  event(event: SseEvent): void {
    const data = dataOf(event);
    const choice = data
      ?.get("choices")
      ?.items()
      .find((each) => (parsedOf(each.get("index")) ?? 0) === 0);
    const delta = choice?.get("delta");
    if (delta === undefined) return;
    this.#said = true;
    this.#content.add(delta.get("content"));
    this.#refusal.add(delta.get("refusal"));
    if (delta.get("function_call")?.kind === "object" || delta.get("audio")?.kind === "object")
      throw new UnkeepableError("the reply has parts that are not kept: function_call or audio");
    for (const piece of delta.get("tool_calls")?.items() ?? []) {
      const index = countOf(parsedOf(piece.get("index"))) ?? this.#calls.length;
      this.#calls[index] ??= new Call();
      this.#calls[index].add(piece);
    }
  }
  finish(): readonly string[] {
    if (!this.#said) return [];
    const calls = this.#calls.flatMap((call) => call.json());
    const content =
      this.#content.empty && (calls.length > 0 || !this.#refusal.empty) ? "null" : this.#content.json;
    const members = ['"role":"assistant"', `"content":${content}`];
    if (!this.#refusal.empty) members.push(`"refusal":${this.#refusal.json}`);
    if (calls.length > 0) members.push(`"tool_calls":[${calls.join(",")}]`);
    return [`{${members.join(",")}}`];
  }
}

/** One call of a tool. Members that are not known (a vendor's signature) are kept as they came last. */
class Call {
  readonly #name = new Literal();
  readonly #arguments = new Literal();
  readonly #members = new Map<string, string>([["type", '"function"']]);
  #isFunction = false;

  add(piece: JsonNode): void {
    for (const { key, value } of piece.entries()) {
      if (key === "index" || value.kind === "null") continue;
      if (key !== "function") {
        this.#members.set(key, value.raw());
        continue;
      }
      this.#isFunction = true;
      this.#name.add(value.get("name"));
      this.#arguments.add(value.get("arguments"));
    }
  }
  json(): string {
    const members = [...this.#members].map(([key, value]) => `${JSON.stringify(key)}:${value}`);
    if (this.#isFunction)
      members.push(`"function":{"name":${this.#name.json},"arguments":${this.#arguments.json}}`);
    return `{${members.join(",")}}`;
  }
}

const ENDS: ReadonlySet<string> = new Set(["response.completed", "response.incomplete"]);

/** Takes the items of a Responses stream from its last event, which has all of them. */
export class ResponseAssembler implements Assembler {
  #items: readonly string[] = [];

  event(event: SseEvent): void {
    if (event.event !== "message" && !ENDS.has(event.event)) return;
    const data = dataOf(event);
    if (data === undefined || !ENDS.has(textOf(data.get("type")) ?? "")) return;
    this.#items =
      data
        .get("response")
        ?.get("output")
        ?.items()
        .map((item) => item.raw()) ?? [];
  }
  finish(): readonly string[] {
    return this.#items;
  }
}
