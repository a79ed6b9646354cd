import { bareName } from "./encoding.ts";
import type { ImageSize } from "./image-size.ts";

export type Detail = "low" | "high" | "original";

/** How a model bills images. Equal rules have equal names, so that counts can be remembered by them. */
export interface ImageRule {
  readonly name: string;
  /** Tokens of an image; of one whose size is not known, those of a large one. */
  tokens(size: ImageSize | undefined, detail: Detail): number;
}

export function imageRuleOf(model: string): ImageRule {
  const name = bareName(model);
  if (name.includes("claude")) return NEW_CLAUDE.test(name) ? CLAUDE_LARGE : CLAUDE;
  return OPENAI.find(([pattern]) => pattern.test(name))?.[1] ?? TILES_85;
}

/** Models that read large images: Opus 4.7 and later, and the fifth generation. */
const NEW_CLAUDE = /(?:opus-4[.-][78]|(?:opus|sonnet|haiku|fable|mythos)-(?:[5-9]|\d\d))/;

/**
 * Anthropic: a token for each patch of 28 × 28 pixels, after scaling down to the longest edge and the most tokens that
 * the model takes (platform.claude.com/docs/en/build-with-claude/vision; the older formula there, width × height ÷ 750, comes to
 * nearly the same).
 */
function claude(longestEdge: number, most: number): ImageRule {
  return {
    name: `claude ${longestEdge} ${most}`,
    tokens(size) {
      if (size === undefined) return most;
      const scale = Math.min(1, longestEdge / Math.max(size.width, size.height));
      return Math.min(most, patches(size, scale, 28));
    },
  };
}
const CLAUDE = claude(1568, 1568);
const CLAUDE_LARGE = claude(2576, 4784);

/**
 * OpenAI, tiles: a base, and so much for each 512-pixel square after scaling to within 2048 and then to a short side of 768
 * (developers.openai.com/api/docs/guides/images-vision, "Calculating costs"). Low detail is the base alone.
 */
function tiles(base: number, each: number): ImageRule {
  return {
    name: `tiles ${base} ${each}`,
    tokens(size, detail) {
      if (detail === "low") return base;
      const { width, height } = size ?? { width: 1024, height: 1024 };
      const fit = Math.min(1, 2048 / Math.max(width, height));
      const scale = fit * Math.min(1, 768 / (Math.min(width, height) * fit));
      const across = Math.ceil(rounded(width * scale) / 512);
      const down = Math.ceil(rounded(height * scale) / 512);
      return base + each * Math.max(1, across) * Math.max(1, down);
    },
  };
}
const TILES_85 = tiles(85, 170);

/**
 * OpenAI, patches: one for each 32-pixel square, times the model's factor. An image of more than the budget is scaled down to
 * it, and further until whole patches fit one of its sides (same page).
 */
function squares(budget: number, factor: number): ImageRule {
  return {
    name: `patches ${budget} ${factor}`,
    tokens(size, detail) {
      const most = detail === "original" ? Math.max(budget, 10_000) : budget;
      if (size === undefined) return Math.ceil(budget * factor);
      return Math.ceil(Math.min(most, squaresOf(size, most)) * factor);
    },
  };
}

function squaresOf(size: ImageSize, most: number): number {
  const whole = patches(size, 1, 32);
  if (whole <= most) return whole;
  const across = size.width / 32;
  const down = size.height / 32;
  const shrink = Math.sqrt(most / (across * down));
  const fit = Math.min(
    Math.floor(across * shrink) / (across * shrink),
    Math.floor(down * shrink) / (down * shrink),
  );
  return patches(size, shrink * fit, 32);
}

const OPENAI: readonly (readonly [RegExp, ImageRule])[] = [
  [/^gpt-4o-mini/, tiles(2833, 5667)],
  [/^gpt-4\.1-mini/, squares(1536, 1.62)],
  [/^gpt-4\.1-nano/, squares(1536, 2.46)],
  [/^(?:o4-mini|codex-mini)/, squares(1536, 1.72)],
  [/^(?:o1|o3)/, tiles(75, 150)],
  [/^computer-use/, tiles(65, 129)],
  [/^gpt-5-mini/, squares(1536, 1.62)],
  [/^gpt-5-nano/, squares(1536, 2.46)],
  [/^gpt-5(?:$|-|[.-]1)/, tiles(70, 140)],
  // From GPT-5.2 on; developers were billed 1.2 tokens a patch.
  [/^gpt-(?:5[.-]\d|[6-9])/, squares(2500, 1.2)],
];

function patches({ width, height }: ImageSize, scale: number, edge: number): number {
  return (
    Math.max(1, Math.ceil(rounded(width * scale) / edge)) *
    Math.max(1, Math.ceil(rounded(height * scale) / edge))
  );
}

/** Pixels are whole. */
function rounded(pixels: number): number {
  return Math.max(1, Math.round(pixels));
}
