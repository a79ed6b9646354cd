/** How long a prompt cache entry lives after its last use. */
export type CacheTtl = "5m" | "1h";

/** One piece of a prompt, in the order in which the provider reads them: the unit of prompt caching. */
export interface PromptBlock {
  /** What the provider reads of it, without any cache marker; its tokens beyond this text are `extraTokens`. */
  readonly content: string;
  /** Kind and role: the same text elsewhere is another block. */
  readonly place: string;
  readonly tokens: number;
  readonly extraTokens: number;
  /** A cache breakpoint behind this block. */
  readonly breakpoint: CacheTtl | undefined;
  /** Whether it is an image, or has one in it. */
  readonly hasImage: boolean;
}

export interface PromptTool {
  readonly name: string;
  /** A JSON Schema, or nothing useful. */
  readonly schema: unknown;
}

/** A request in whatever dialect, as far as the embedded provider understands it. */
export interface Prompt {
  readonly model: string;
  readonly isStream: boolean;
  readonly maxTokens: number | undefined;
  readonly stop: readonly string[];
  readonly blocks: readonly PromptBlock[];
  /** What its text was measured with. */
  readonly bytesPerToken: number;
  /** What else the messages' place in the prompt cache depends on: it is another prompt with other settings. */
  readonly messageScope: string;
  /** Tools that the client runs. */
  readonly tools: readonly PromptTool[];
  /** "auto", "none", "any", or the one tool that must be called. */
  readonly toolChoice: "auto" | "none" | "any" | { readonly name: string };
  readonly lastUserText: string;
  /** The results that the conversation ends with; empty where it ends otherwise. */
  readonly toolResults: readonly { readonly tool: string | undefined; readonly text: string }[];
  /** A JSON Schema that the answer must follow; undefined: free text. */
  readonly answerSchema: unknown;
}

export function promptTokens(prompt: Pick<Prompt, "blocks">): number {
  return prompt.blocks.reduce((sum, block) => sum + block.tokens, 0);
}
