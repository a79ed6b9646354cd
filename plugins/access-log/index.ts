import { definePlugin, z } from "@tokenman/plugin-sdk";
import { entryOf } from "./entry.ts";
import { openOutput } from "./output.ts";

const configSchema = z
  .strictObject({
    file: z
      .string()
      .default("")
      .meta({ path: true })
      .describe("Where the lines go. Empty: the standard output of the process."),
  })
  .describe("One line of JSON for each request.");

/** Writes one line of JSON for each exchange when it has ended, however it ended. */
export default definePlugin({
  name: "access-log",
  version: "0.1.0",
  apiVersion: 1,
  description: "Writes one line of JSON for each request",
  section: "access_log",
  configSchema,
  async setup(ctx) {
    const { file } = ctx.config;
    // Shared by the generations: an old one may still have exchanges to log when the new one writes already.
    const output = await ctx.keep(
      `output ${file}`,
      () => openOutput(file),
      (open, { startFailed }) => open.close({ forget: startFailed }),
    );
    ctx.every("report lost lines", 60_000, () => {
      const lost = output.takeLost();
      if (lost !== undefined) ctx.log.warn({ file, ...lost }, "access log lines were lost");
    });
    ctx.pipeline((_config, hooks) => {
      hooks.lifecycle.for("settled").tap((exchange, outcome) => output.write(entryOf(exchange, outcome)));
    });
  },
});
