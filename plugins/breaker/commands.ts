import { type Command, type CommandContext, readAnswer, TokenmanError, z } from "@tokenman/plugin-sdk";

const STATES: Readonly<Record<string, string>> = {
  open: "open",
  close: "closed",
  closed: "closed",
  auto: "auto",
};

const figures = {
  state: z.string(),
  recentCalls: z.number(),
  recentFailures: z.number(),
  probeInMs: z.number().optional(),
  reason: z.string().optional(),
};
const viewShape = z.object({
  provider: z.string(),
  forced: z.boolean(),
  ...figures,
  models: z.array(z.object({ model: z.string(), ...figures })),
});
const listShape = z.object({ circuits: z.array(viewShape) });
type View = z.output<typeof viewShape>;
type Figures = View["models"][number];

export const circuitCommand: Command = {
  usage: "circuit [name] [action]",
  description: "Show the providers' circuits, or open one, close it, or let it work by itself",
  options: [{ flag: "--json", description: "Print JSON" }],
  examples: ["tokenman circuit", "tokenman circuit anthropic open", "tokenman circuit anthropic auto"],
  run,
};

async function run(context: CommandContext): Promise<void> {
  const { args, options, print } = context;
  const name = args["name"] as string | undefined;
  const action = args["action"] as string | undefined;
  const circuits =
    name !== undefined && action !== undefined
      ? [await force(context, name, action)]
      : await list(context, name);
  if (options["json"] === true) print(JSON.stringify(circuits));
  else for (const line of table(circuits)) print(line);
}

async function list(context: CommandContext, name: string | undefined): Promise<View[]> {
  const { circuits } = await answer(context, await context.fetch("/api/circuits"), listShape);
  const shown = circuits.filter(({ provider }) => name === undefined || provider === name);
  if (shown.length === 0) throw unknown(name ?? "", circuits);
  return shown;
}

async function force(context: CommandContext, name: string, action: string): Promise<View> {
  const state = Object.hasOwn(STATES, action) ? STATES[action] : undefined;
  if (state === undefined)
    throw new TokenmanError("TM_USAGE", `expected open, close or auto, found "${action}"`);
  const init = { method: "POST", body: JSON.stringify({ state }) };
  const response = await context.fetch(`/api/providers/${encodeURIComponent(name)}/circuit`, init);
  if (response.status === 404) throw unknown(name, []);
  return await answer(context, response, viewShape);
}

async function answer<S extends z.ZodType>(
  context: CommandContext,
  response: Response,
  shape: S,
): Promise<z.output<S>> {
  if (response.ok) return readAnswer(context, response, shape);
  throw new TokenmanError(
    "TM_NOT_RUNNING",
    `TokenMan answered ${response.status}: is the plugin breaker on?`,
  );
}

function unknown(name: string, circuits: readonly View[]): TokenmanError {
  const known = circuits.map(({ provider }) => provider).join(", ");
  return new TokenmanError(
    "TM_USAGE",
    `there is no provider "${name}"${known === "" ? "" : `; there are ${known}`}`,
  );
}

/** A line for each circuit, with columns as wide as they must be; a provider's models below it. */
function table(circuits: readonly View[]): string[] {
  const lines = circuits.flatMap((view) => [
    { name: view.provider, view, mark: view.forced ? " (by hand)" : "" },
    ...view.models.map((each) => ({ name: `  ${each.model}`, view: each, mark: "" })),
  ]);
  const width = Math.max(...lines.map(({ name }) => name.length));
  return lines.map(({ name, view, mark }) => {
    const why =
      view.state === "closed" ? failures(view) : [view.reason, probe(view)].filter(Boolean).join("; ");
    return `${name.padEnd(width)}  ${`${view.state}${mark}`.padEnd(18)}  ${why}`.trimEnd();
  });
}

function failures({ recentCalls, recentFailures }: Omit<Figures, "model">): string {
  return recentCalls === 0 ? "" : `${recentFailures} of ${recentCalls} attempts failed lately`;
}

function probe({ probeInMs }: Omit<Figures, "model">): string {
  return probeInMs === undefined ? "" : `a probe in ${Math.ceil(probeInMs / 1_000)} s`;
}
