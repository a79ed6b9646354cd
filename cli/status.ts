import { formatUsd, readAnswer, TokenmanError, z } from "@tokenman/plugin-sdk";
import { type Client, createClient, type Status, statusShape } from "./client.ts";
import type { Invocation } from "./command.ts";
import { isAlive, type PidRecord, runningInstance } from "./pid-file.ts";
import { settingsInSpite } from "./settings.ts";
import { duration, labelled, paint } from "./terminal.ts";

/** `tokenman status`: 0 where an instance runs and answers, else TM_NOT_RUNNING's exit code. */
export async function status({ options, print, color }: Invocation): Promise<number> {
  const settings = settingsInSpite(options);
  const json = options["json"] === true;
  const instance = runningInstance(settings.server.data_dir);
  if (instance === undefined) {
    const error = new TokenmanError("TM_NOT_RUNNING", `no TokenMan runs with ${settings.server.data_dir}`);
    if (!json) throw error;
    print(JSON.stringify({ running: false, dataDir: settings.server.data_dir }));
    return error.exit;
  }
  const client = createClient(settings);
  const reply = await client.ask("/api/status");
  if (!reply.ok) {
    const said = await reply.text();
    throw new TokenmanError(
      "TM_NOT_RUNNING",
      `process ${instance.pid} answers ${reply.status}: ${said.slice(0, 500)}`,
    );
  }
  const host = await readAnswer(client, reply, statusShape);
  const today = await lastDay(client);
  if (json) print(JSON.stringify({ running: true, ...instance, ...host, lastDay: today }, undefined, 2));
  else for (const line of describe(instance, host, today, color)) print(line);
  return 0;
}

/** What is shown of the last 24 hours, as `/api/stats` has it. */
const dayShape = z.object({
  requests: z.number(),
  errors: z.number(),
  cost: z.object({ usd: z.number().nullable(), estimatedUsd: z.number(), unpriced: z.number() }),
  savings: z.object({ netUsd: z.number() }),
  ledger: z.object({ failing: z.string().nullable() }),
});
type LastDay = z.output<typeof dayShape>;

/** Undefined where the API or the ledger is off, or cannot answer: the status is told all the same. */
async function lastDay(client: Client): Promise<LastDay | undefined> {
  try {
    const reply = await client.ask("/api/stats?range=24h");
    return reply.ok ? await readAnswer(client, reply, dayShape) : undefined;
  } catch {
    return undefined;
  }
}

function describeDay({ requests, errors, cost, savings, ledger }: LastDay): string[] {
  const usd = (amount: number): string => formatUsd(Math.round(amount * 1e9));
  const known = cost.usd === null ? "unpriced" : `${cost.estimatedUsd > 0 ? "~" : ""}${usd(cost.usd)}`;
  const unpriced =
    cost.unpriced === 0 || cost.usd === null ? "" : `, and ${cost.unpriced} calls of unknown price`;
  const lines = [
    `  last 24 h   ${requests} ${requests === 1 ? "request" : "requests"}, ${errors} answered with an error`,
    `  cost        ${known}${unpriced}; ${usd(savings.netUsd)} saved`,
  ];
  if (ledger.failing !== null) lines.push(`  ledger      ${ledger.failing}`);
  return lines;
}

/** Where nobody says how wide the terminal is. */
const COLUMNS = 100;

function describe(instance: PidRecord, host: Status, today: LastDay | undefined, color: boolean): string[] {
  const { lastReload, plugins } = host;
  const columns = process.stdout.columns ?? COLUMNS;
  const state = host.draining
    ? paint(color, "yellow", "is shutting down")
    : paint(color, "green", "is running");
  const lines = [
    `TokenMan ${instance.version} ${state} (pid ${instance.pid}, for ${duration(Date.now() - instance.startedAt)})`,
    `  proxy       ${instance.proxy ?? host.proxyAddress}`,
    `  dashboard   ${instance.dashboard ?? host.dashboardAddress}`,
    `  config      ${instance.configFile ?? "none; defaults and the environment"}`,
    `  requests    ${host.activeExchanges} in flight`,
    ...instance.before.filter(isAlive).map(({ pid }) => `  before      pid ${pid} finishes its requests`),
    ...(today === undefined ? [] : describeDay(today)),
    `  generation  ${host.generation}`,
  ];
  if (lastReload !== undefined) {
    const ago = `${duration(Date.now() - lastReload.at)} ago`;
    if (lastReload.ok) lines.push(`  reload      ${ago}: ok`);
    else
      lines.push(`  reload      ${ago}: ${paint(color, "red", "failed")}, the generation before it serves`);
    for (const line of lastReload.error?.split("\n") ?? []) lines.push(`              ${line}`);
  }
  const on = plugins.filter((plugin) => plugin.state === "on").map(({ name }) => name);
  lines.push(...labelled("  plugins     ", on.join(", "), columns));
  for (const { name, state: why, reason } of plugins.filter((plugin) => plugin.state !== "on")) {
    lines.push(`              ${name} is ${why}${reason === undefined ? "" : `: ${reason}`}`);
  }
  return lines;
}
