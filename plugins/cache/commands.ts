import {
  type Command,
  type CommandContext,
  formatSize,
  readAnswer,
  TokenmanError,
  z,
} from "@tokenman/plugin-sdk";

export const cacheCommands: readonly Command[] = [
  {
    usage: "cache stats",
    description: "Show how full the response cache is, and what it did since the start",
    options: [{ flag: "--json", description: "Print JSON" }],
    examples: ["tokenman cache stats"],
    run: stats,
  },
  {
    usage: "cache purge",
    description: "Drop stored answers: all, or those of one project",
    options: [{ flag: "--project <name>", description: "Only this project's" }],
    examples: ["tokenman cache purge", "tokenman cache purge --project web"],
    run: purge,
  },
];

const tier = { entries: z.number(), bytes: z.number(), evicted: z.number() };
const statsShape = z.object({
  hits: z.number(),
  misses: z.number(),
  coalesced: z.number(),
  bypassed: z.number(),
  memory: z.object(tier),
  disk: z.object({ ...tier, failing: z.string().nullable() }),
});
const purgeShape = z.object({ purged: z.number() });

async function stats(context: CommandContext): Promise<void> {
  const { fetch, options, print } = context;
  const found = await answer(context, await fetch("/api/cache"), statsShape);
  if (options["json"] === true) {
    print(JSON.stringify(found));
    return;
  }
  const { hits, misses, coalesced, bypassed, memory, disk } = found;
  const lookups = hits + misses + coalesced;
  const rate = lookups === 0 ? "" : ` (${Math.round((100 * (hits + coalesced)) / lookups)} % of ${lookups})`;
  print(`answered   ${hits} from the store, ${coalesced} by another request at the same time${rate}`);
  print(`asked      ${misses} went to a provider, ${bypassed} more were not the cache's`);
  print(`memory     ${memory.entries} answers, ${formatSize(memory.bytes)}, ${memory.evicted} given up`);
  print(`disk       ${disk.entries} answers, ${formatSize(disk.bytes)}, ${disk.evicted} given up`);
  if (disk.failing !== null) print(`           cannot be written: ${disk.failing}`);
}

async function purge(context: CommandContext): Promise<void> {
  const { fetch, options, print } = context;
  const project = options["project"];
  const body = JSON.stringify(project === undefined ? {} : { project: String(project) });
  const reply = await fetch("/api/cache/purge", { method: "POST", body });
  const { purged } = await answer(context, reply, purgeShape);
  print(`${purged} ${purged === 1 ? "answer" : "answers"} dropped`);
}

async function answer<S extends z.ZodType>(
  context: CommandContext,
  response: Response,
  shape: S,
): Promise<z.output<S>> {
  if (response.ok) return readAnswer(context, response, shape);
  const said = (await response.json().catch(() => undefined)) as
    | { error?: { message?: unknown } }
    | undefined;
  const message = said?.error?.message;
  if (response.status === 500 && typeof message === "string") throw new TokenmanError("TM_DATA_DIR", message);
  throw new TokenmanError("TM_NOT_RUNNING", `TokenMan answered ${response.status}: is the plugin cache on?`);
}
