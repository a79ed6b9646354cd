import { readFile } from "node:fs/promises";
import type { Place } from "@tokenman/plugin-sdk";
import { codeFrame } from "../config/frame.ts";

interface Frame {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** The places of an error's stack, innermost first. Node has mapped those of compiled plugins to their sources. */
export function framesOf(cause: unknown): Frame[] {
  const stack = cause instanceof Error ? (cause.stack ?? "") : "";
  const frames = stack.matchAll(/^ +at (?:.*\()?(?:file:\/\/)?(.+?):(\d+):(\d+)\)?$/gm);
  return [...frames].map(([, file, line, column]) => ({
    file: file!,
    line: Number(line),
    column: Number(column),
  }));
}

/** Where in the plugin's own sources (`inputs`) an error was thrown; its entry file where the stack does not tell. */
export async function throwPlace(cause: unknown, file: string, inputs: readonly string[]): Promise<Place> {
  const frame = framesOf(cause).find((each) => inputs.includes(each.file));
  if (frame === undefined) return { file };
  const source = await readFile(frame.file, "utf8").catch(() => undefined);
  return source === undefined ? frame : { ...frame, frame: codeFrame(source, frame.line, frame.column) };
}
