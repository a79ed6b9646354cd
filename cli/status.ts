import { type HostStatus, TokenmanError } from "@tokenman/plugin-sdk";
import { createClient } from "./client.ts";
import type { Invocation } from "./command.ts";
import { type PidRecord, runningInstance } from "./pid-file.ts";
import { readSettings } from "./settings.ts";
import { duration, paint } from "./terminal.ts";

/** `tokenman status`: 0 where an instance runs and answers, else TM_NOT_RUNNING's exit code. */
export async function status({ options, print, color }: Invocation): Promise<number> {
  const settings = readSettings(options);
  const json = options["json"] === true;
  const instance = runningInstance(settings.server.data_dir);
  if (instance === undefined) {
    const error = new TokenmanError("TM_NOT_RUNNING", `no TokenMan runs with ${settings.server.data_dir}`);
    if (!json) throw error;
    print(JSON.stringify({ running: false, dataDir: settings.server.data_dir }));
    return error.exit;
  }
  const reply = await createClient(settings).ask("/api/status");
  if (!reply.ok) {
    const said = await reply.text();
    throw new TokenmanError(
      "TM_NOT_RUNNING",
      `process ${instance.pid} answers ${reply.status}: ${said.slice(0, 500)}`,
    );
  }
  const host = (await reply.json()) as HostStatus;
  if (json) print(JSON.stringify({ running: true, ...instance, ...host }, undefined, 2));
  else for (const line of describe(instance, host, color)) print(line);
  return 0;
}

function describe(instance: PidRecord, host: HostStatus, color: boolean): string[] {
  const { lastReload, plugins } = host;
  const state = host.draining
    ? paint(color, "yellow", "is shutting down")
    : paint(color, "green", "is running");
  const lines = [
    `TokenMan ${instance.version} ${state} (pid ${instance.pid}, for ${duration(Date.now() - instance.startedAt)})`,
    `  proxy       ${instance.proxy ?? host.proxyAddress}`,
    `  dashboard   ${instance.dashboard ?? host.dashboardAddress}`,
    `  config      ${instance.configFile ?? "none; defaults and the environment"}`,
    `  requests    ${host.activeExchanges} in flight`,
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
  lines.push(`  plugins     ${on.join(", ")}`);
  for (const { name, state: why, reason } of plugins.filter((plugin) => plugin.state !== "on")) {
    lines.push(`              ${name} is ${why}${reason === undefined ? "" : `: ${reason}`}`);
  }
  return lines;
}
