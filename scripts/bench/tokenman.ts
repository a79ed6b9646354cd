/** TokenMan as a subject: its command line and configuration for the bench, in one place. */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Child, freePort, spawnChild } from "./children.ts";
import type { BenchDialect } from "./replies.ts";

/** `kernel` loads no feature, only dialects, router and health; each of the next three adds one part of the features. */
export type TokenmanVariant = "kernel" | "ledger" | "resilience" | "saving" | "cache" | "default";

const LEDGER = ["tokenizer", "pricing", "store", "recorder", "metrics", "api", "budget", "rate-limit"];
const RESILIENCE = ["breaker", "retry"];
const SAVING = ["savings", "cache", "dedup", "rules"];

/** Limits that are asked for every request and never reached. */
const LIMITS = `
[security.budget]
enabled = true
monthly_limit = 1e6
[security.rate_limit]
enabled = true
default_rate = 1e6
default_burst = 1e6
`;

/** What each variant adds to the configuration file. */
const CONFIG: Record<TokenmanVariant, string> = {
  kernel: orderOf([]),
  ledger: orderOf(LEDGER) + LIMITS,
  resilience: orderOf([...LEDGER, ...RESILIENCE]) + LIMITS,
  saving: orderOf([...SAVING, ...LEDGER, ...RESILIENCE]) + LIMITS,
  cache: orderOf(["cache"]),
  default: "",
};

function orderOf(plugins: readonly string[]): string {
  return `[plugins]\norder = ${JSON.stringify(plugins)}\n`;
}

/** The built program where there is one, else the sources as they are. */
function commandLine(root: string): [command: string, args: string[]] {
  const built = join(root, "bin", "tokenman");
  if (existsSync(built)) return [built, []];
  const entry = join(root, "cli", "main.ts");
  if (existsSync(entry)) return [process.execPath, [entry]];
  throw new Error("neither bin/tokenman nor cli/main.ts is there");
}

export interface TokenmanStart {
  root: string;
  variant: TokenmanVariant;
  dialect: BenchDialect;
  upstreamPort: number;
  /** A folder of this start's own: configuration and data go there. */
  folder: string;
  env: Record<string, string>;
  maxFiles?: number;
}

/** Starts TokenMan with one provider, the bench's upstream, and both ports free ones. */
export async function startTokenman(start: TokenmanStart): Promise<{ child: Child; port: number }> {
  const [command, args] = commandLine(start.root);
  const port = await freePort();
  const dashboardPort = await freePort();
  mkdirSync(start.folder, { recursive: true });
  const config = join(start.folder, "tokenman.toml");
  const text = [
    "[server]",
    `proxy_port = ${port}`,
    `dashboard_port = ${dashboardPort}`,
    `data_dir = ${JSON.stringify(join(start.folder, "data"))}`,
    "",
    "[providers.up]",
    `format = "${start.dialect}"`,
    `api_base = "http://127.0.0.1:${start.upstreamPort}"`,
    'auth = "client"',
    "",
    "[routing]",
    'default_provider = "up"',
    "",
    CONFIG[start.variant],
  ].join("\n");
  writeFileSync(config, text);
  const child = spawnChild(command, [...args, "start", "--foreground", "--config", config], {
    env: start.env,
    ...(start.maxFiles === undefined ? {} : { maxFiles: start.maxFiles }),
  });
  return { child, port };
}
