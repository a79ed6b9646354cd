/**
 * The command line. This folder is where TokenMan is put together: it alone imports the kernel and the first-party
 * plugins.
 */
import { writeSync } from "node:fs";
import { builtInCommands } from "./commands.ts";
import { dispatch } from "./dispatch.ts";
import { describeFailure } from "./failure.ts";
import { VERSION } from "./version.ts";

const argv = process.argv.slice(2);
// What is piped away may lose its reader: `tokenman plugins | head`.
process.stdout.on("error", () => process.exit());
try {
  const code = await dispatch(argv, {
    program: "tokenman",
    version: VERSION,
    commands: builtInCommands,
    pluginCommands: async () => (await import("./plugin-commands.ts")).pluginCommands(argv),
    print: (line) => void process.stdout.write(`${line}\n`),
    warn: (text) => void writeSync(2, `tokenman: ${text}\n`),
  });
  process.exit(code);
} catch (error) {
  const { text, exit } = describeFailure(error);
  writeSync(2, `tokenman: ${text}\n`);
  process.exit(exit);
}
