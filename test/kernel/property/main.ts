/** Runs seeds: `node main.ts [--exchanges N] [--patience MS] SEED…`. Exits with 1 at the first that fails, and says how. */
import { inspect, isDeepStrictEqual, parseArgs } from "node:util";
import { runSeed, sound } from "./world.ts";

const { values, positionals } = parseArgs({
  options: {
    exchanges: { type: "string", default: "120" },
    patience: { type: "string", default: "4000" },
  },
  allowPositionals: true,
});
process.on("unhandledRejection", (reason) => {
  console.error("unhandled rejection:", reason);
  process.exit(1);
});
process.on("uncaughtException", (error) => {
  console.error("uncaught exception:", error);
  process.exit(1);
});
for (const seed of positionals.map(Number)) {
  const exchanges = Number(values.exchanges);
  try {
    const verdict = await runSeed({ seed, exchanges, patienceMs: Number(values.patience) });
    if (isDeepStrictEqual(verdict, sound(exchanges))) continue;
    console.error(verdict.problems[0] ?? `seed ${seed}: ${inspect(verdict)}`);
    process.exit(1);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  }
}
process.exit(0);
