import type { Behaviour } from "./behaviour.ts";
import type { Prompt, PromptTool } from "./prompt.ts";
import { sampleOf } from "./sample.ts";
import type { MockConfig } from "./schema.ts";
import { firstTokens, tokensOf } from "./tokens.ts";

/** What is said, in no dialect. */
export type Answer =
  | {
      readonly kind: "text";
      readonly text: string;
      readonly end: "done" | "length" | "stop";
      /** The stop sequence that was met. */
      readonly stop: string | undefined;
    }
  /** A call of one tool, with its arguments as JSON. */
  | { readonly kind: "tool"; readonly name: string; readonly args: string };

/** Decides what to say: the same for the same request. */
export function answerTo(prompt: Prompt, behaviour: Behaviour, config: MockConfig): Answer {
  const tool = toolToCall(prompt, behaviour);
  if (tool !== undefined) {
    return {
      kind: "tool",
      name: tool.name,
      args: JSON.stringify(sampleOf(tool.schema, prompt.lastUserText)),
    };
  }
  const full = textFor(prompt, behaviour, config);
  const stop = prompt.stop
    .filter((sequence) => full.includes(sequence))
    .sort((left, right) => full.indexOf(left) - full.indexOf(right))[0];
  const stopped = stop === undefined ? full : full.slice(0, full.indexOf(stop));
  const text = prompt.maxTokens === undefined ? stopped : firstTokens(stopped, prompt.maxTokens);
  const end = text !== stopped ? "length" : stop === undefined ? "done" : "stop";
  return { kind: "text", text, end, stop: end === "stop" ? stop : undefined };
}

/** What was generated, in tokens. An empty text is still one: the end. */
export function answerTokens(answer: Answer): number {
  const text = answer.kind === "text" ? answer.text : answer.name + answer.args;
  return Math.max(1, tokensOf(text));
}

/** A tool is called when the client insists, or in the mode "tools"; not again once its result is there. */
function toolToCall({ tools, toolChoice, toolResults }: Prompt, { mode }: Behaviour): PromptTool | undefined {
  if (toolChoice === "none" || toolResults.length > 0) return undefined;
  if (typeof toolChoice === "object") return tools.find((tool) => tool.name === toolChoice.name);
  return toolChoice === "any" || mode === "tools" ? tools[0] : undefined;
}

function textFor(prompt: Prompt, { mode }: Behaviour, config: MockConfig): string {
  if (prompt.answerSchema !== undefined)
    return JSON.stringify(sampleOf(prompt.answerSchema, prompt.lastUserText));
  if (mode === "fixed") return config.fixed_text;
  if (prompt.toolResults.length > 0) {
    return prompt.toolResults.map(({ tool, text }) => `${tool ?? "The tool"} answered: ${text}`).join("\n");
  }
  return prompt.lastUserText === "" ? "mock" : prompt.lastUserText;
}

const PIECE_CHARS = 20;
const MAX_PIECES = 1_000;

/** A text in `count` pieces, or where that is 0 in pieces of about twenty characters; never cut inside a character. */
export function piecesOf(text: string, count: number): readonly string[] {
  if (text === "") return [];
  const wanted = count > 0 ? count : Math.min(MAX_PIECES, Math.ceil(text.length / PIECE_CHARS));
  const pieces: string[] = [];
  let start = 0;
  for (let piece = 1; piece <= wanted && start < text.length; piece++) {
    let end =
      piece === wanted ? text.length : Math.max(start + 1, Math.round((piece * text.length) / wanted));
    // The second half of a surrogate pair goes with the first.
    if (end < text.length && (text.charCodeAt(end) & 0xfc00) === 0xdc00) end++;
    pieces.push(text.slice(start, end));
    start = end;
  }
  return pieces;
}
