import {
  type CircuitFigures,
  type CircuitView,
  type Command,
  type CommandContext,
  TokenmanError,
} from "@tokenman/plugin-sdk";

const STATES: Readonly<Record<string, string>> = {
  open: "open",
  close: "closed",
  closed: "closed",
  auto: "auto",
};

export const circuitCommand: Command = {
  usage: "circuit [name] [action]",
  description: "Show the providers' circuits, or open one, close it, or let it work by itself",
  options: [{ flag: "--json", description: "Print JSON" }],
  examples: ["tokenman circuit", "tokenman circuit anthropic open", "tokenman circuit anthropic auto"],
  run,
};

async function run({ args, options, fetch, print }: CommandContext): Promise<void> {
  const name = args["name"] as string | undefined;
  const action = args["action"] as string | undefined;
  const circuits =
    name !== undefined && action !== undefined ? [await force(fetch, name, action)] : await list(fetch, name);
  if (options["json"] === true) print(JSON.stringify(circuits));
  else for (const line of table(circuits)) print(line);
}

async function list(fetch: CommandContext["fetch"], name: string | undefined): Promise<CircuitView[]> {
  const { circuits } = (await answer(await fetch("/api/circuits"))) as { circuits: CircuitView[] };
  const shown = circuits.filter(({ provider }) => name === undefined || provider === name);
  if (shown.length === 0) throw unknown(name ?? "", circuits);
  return shown;
}

async function force(fetch: CommandContext["fetch"], name: string, action: string): Promise<CircuitView> {
  const state = Object.hasOwn(STATES, action) ? STATES[action] : undefined;
  if (state === undefined)
    throw new TokenmanError("TM_USAGE", `expected open, close or auto, found "${action}"`);
  const init = { method: "POST", body: JSON.stringify({ state }) };
  const response = await fetch(`/api/providers/${encodeURIComponent(name)}/circuit`, init);
  if (response.status === 404) throw unknown(name, []);
  return (await answer(response)) as CircuitView;
}

async function answer(response: Response): Promise<unknown> {
  if (response.ok) return response.json();
  throw new TokenmanError(
    "TM_NOT_RUNNING",
    `TokenMan answered ${response.status}: is the plugin breaker on?`,
  );
}

function unknown(name: string, circuits: readonly CircuitView[]): TokenmanError {
  const known = circuits.map(({ provider }) => provider).join(", ");
  return new TokenmanError(
    "TM_USAGE",
    `there is no provider "${name}"${known === "" ? "" : `; there are ${known}`}`,
  );
}

/** A line for each circuit, with columns as wide as they must be; a provider's models below it. */
function table(circuits: readonly CircuitView[]): string[] {
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

function failures({ recentCalls, recentFailures }: CircuitFigures): string {
  return recentCalls === 0 ? "" : `${recentFailures} of ${recentCalls} attempts failed lately`;
}

function probe({ probeInMs }: CircuitFigures): string {
  return probeInMs === undefined ? "" : `a probe in ${Math.ceil(probeInMs / 1_000)} s`;
}
