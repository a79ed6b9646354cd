import { formatUsd, type HostStatus, TokenmanError } from "@tokenman/plugin-sdk";
import { type Ask, createClient } from "./client.ts";
import type { Invocation } from "./command.ts";
import { isAlive, type PidRecord, runningInstance } from "./pid-file.ts";
import { settingsInSpite } from "./settings.ts";
import { duration, paint, wrapped } from "./terminal.ts";

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
  const { ask } = createClient(settings);
  const reply = await ask("/api/status");
  if (!reply.ok) {
    const said = await reply.text();
    throw new TokenmanError(
      "TM_NOT_RUNNING",
      `process ${instance.pid} answers ${reply.status}: ${said.slice(0, 500)}`,
    );
  }
  const host = (await reply.json()) as HostStatus;
  const today = await lastDay(ask);
  if (json) print(JSON.stringify({ running: true, ...instance, ...host, lastDay: today }, undefined, 2));
  else for (const line of describe(instance, host, today, color)) print(line);
  return 0;
}

/** What is shown of the last 24 hours, as `/api/stats` has it. */
interface LastDay {
  readonly requests: number;
  readonly errors: number;
  readonly cost: { readonly usd: number | null; readonly estimatedUsd: number; readonly unpriced: number };
  readonly savings: { readonly netUsd: number };
  readonly ledger: { readonly failing: string | null };
}

/** Undefined where the API or the ledger is off, or cannot answer: the status is told all the same. */
async function lastDay(ask: Ask): Promise<LastDay | undefined> {
  try {
    const reply = await ask("/api/stats?range=24h");
    return reply.ok ? ((await reply.json()) as LastDay) : undefined;
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

const INDENT = " ".repeat(14);
/** Where nobody says how wide the terminal is. */
const COLUMNS = 100;

function describe(
  instance: PidRecord,
  host: HostStatus,
  today: LastDay | undefined,
  color: boolean,
): string[] {
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
  for (const [index, line] of wrapped(on.join(", "), columns - INDENT.length).entries())
    lines.push(`${index === 0 ? "  plugins     " : INDENT}${line}`);
  for (const { name, state: why, reason } of plugins.filter((plugin) => plugin.state !== "on")) {
    lines.push(`              ${name} is ${why}${reason === undefined ? "" : `: ${reason}`}`);
  }
  return lines;
}
