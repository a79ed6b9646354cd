import type { Command } from "@tokenman/plugin-sdk";
import { readPhrases } from "./memory.ts";

/** `tokenman parrot`: reads the file, so that it works whether TokenMan runs or not. */
export const parrotCommand: Command = {
  usage: "parrot",
  description: "List what the parrot has learnt, what it heard most often first",
  options: [{ flag: "--json", description: "As JSON: [[phrase, times], …]" }],
  examples: ["tokenman parrot", "tokenman parrot --json"],
  async run({ host, options, print }) {
    const phrases = [...(await readPhrases(host.dataDir))].sort(([, left], [, right]) => right - left);
    if (options["json"] === true) print(JSON.stringify(phrases));
    else if (phrases.length === 0)
      print("The parrot has learnt nothing yet. Talk to it: its model is called parrot.");
    // JSON strings: what somebody said to it must not steer a terminal.
    else
      for (const [phrase, times] of phrases) print(`${String(times).padStart(5)}  ${JSON.stringify(phrase)}`);
  },
};
