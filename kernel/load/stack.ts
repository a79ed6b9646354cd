import { readFile } from "node:fs/promises";
import type { Place } from "@tokenman/plugin-sdk";
import { codeFrame } from "../config/frame.ts";

/**
 * Where in the plugin's own sources (`inputs`) an error was thrown, read from its stack, which Node has mapped back
 * through the source map; the entry file alone where the stack does not tell.
 */
export async function throwPlace(cause: unknown, file: string, inputs: readonly string[]): Promise<Place> {
  const stack = cause instanceof Error ? (cause.stack ?? "") : "";
  for (const [, at, line, column] of stack.matchAll(/^ +at (?:.*\()?(?:file:\/\/)?(.+?):(\d+):(\d+)\)?$/gm)) {
    if (at === undefined || !inputs.includes(at)) continue;
    const source = await readFile(at, "utf8").catch(() => undefined);
    const place = { file: at, line: Number(line), column: Number(column) };
    return source === undefined ? place : { ...place, frame: codeFrame(source, place.line, place.column) };
  }
  return { file };
}
