import { join } from "node:path";
import { Decisions, definePlugin, type HealthResult, Ledger, z } from "@tokenman/plugin-sdk";
import { ledgerCommands } from "./commands.ts";
import { databaseFile } from "./file.ts";
import type { Tuning } from "./messages.ts";
import { SqliteLedger } from "./sqlite-ledger.ts";

const configSchema = z
  .strictObject({
    synchronous: z
      .enum(["normal", "full"])
      .default("normal")
      .describe(
        "normal: what is committed outlives a crash of TokenMan; full: a power failure too, at the price of a disk flush each commit.",
      ),
    body_retention_days: z
      .number()
      .min(0)
      .default(7)
      .describe("Days that stored bodies stay. 0 is as long as their requests."),
  })
  .describe("The database of requests, tokens and money.");

const metricsSchema = z.strictObject({
  retention_days: z
    .int()
    .min(0)
    .default(30)
    .describe("Days that requests stay in the database. 0 keeps them all; sums by day stay in any case."),
});

/** Keeps the ledger in an SQLite database in the data folder. */
export default definePlugin({
  name: "store",
  version: "0.1.0",
  apiVersion: 1,
  description: "Keeps every request, its tokens and its cost in a database",
  section: "store",
  configSchema,
  extraSections: { metrics: metricsSchema },
  provides: [Ledger, Decisions],
  stage: "ingress",
  // A new version of the schema may have to go through all rows once: two seconds a million on a slow disk.
  timeouts: { setupMs: 120_000 },
  commands: ledgerCommands,
  async setup(ctx) {
    const { synchronous, body_retention_days: bodyDays } = ctx.config;
    const { retention_days: days } = ctx.section("metrics") as z.output<typeof metricsSchema>;
    const tuning: Tuning = { synchronous, retention: { days, bodyDays } };
    const file = join(ctx.host.dataDir, databaseFile);
    // One writer for all generations: an old one's exchanges end while the new one's begin.
    const ledger = await ctx.keep(
      `ledger ${file}`,
      () => SqliteLedger.open({ file, bootId: ctx.host.bootId, ...tuning }, ctx.log),
      (open, { startFailed }) => open.close({ forget: startFailed }),
    );
    ctx.provide(Ledger, ledger);
    ctx.provide(Decisions, ledger.decisions);
    ctx.contribute("health", {
      name: "database",
      required: false,
      check: (): HealthResult => {
        const { failing, waiting, lost } = ledger.state;
        const gap = lost === 0 ? "" : `${lost} rows are lost`;
        if (failing === undefined) return lost === 0 ? { ok: true } : { ok: true, detail: gap };
        return { ok: false, detail: `${failing}; ${waiting} rows wait${gap === "" ? "" : `, ${gap}`}` };
      },
    });
    ctx.pipeline((_config, hooks) => {
      hooks.lifecycle.for("ready").tap(() => {
        ledger.tune(tuning);
      });
    });
  },
});
