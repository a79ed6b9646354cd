/**
 * Portkey's gateway as a subject of comparison: installed on demand into `.cache/bench/portkey` (git-ignored), at one
 * version, without running install scripts. By its defaults it lets a request name a loopback host as the upstream.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Child, freePort, spawnChild } from "./children.ts";

const PACKAGE = "@portkey-ai/gateway";
const VERSION = "1.15.2";
/**
 * The version the gateway is built and locked with. With later ones, which npm would choose, every streamed reply is a
 * 500 ("TypeError: immutable", Portkey-AI/gateway issue 1389); a comparison wants the gateway at its best.
 */
const OVERRIDES = { "@hono/node-server": "1.13.5" };
const INSTALL_MS = 120_000;

/**
 * Returns the path of the gateway's start script, installing it first where it is missing.
 * @throws Error with npm's last words where it cannot be had
 */
export function installPortkey(root: string): string {
  const folder = join(root, ".cache", "bench", `portkey-${VERSION}`);
  const script = join(folder, "node_modules", PACKAGE, "build", "start-server.js");
  if (existsSync(script)) return script;
  mkdirSync(folder, { recursive: true });
  // A package.json of its own keeps npm from installing into the project that this folder lies in.
  writeFileSync(
    join(folder, "package.json"),
    `${JSON.stringify({ private: true, overrides: OVERRIDES }, null, 2)}\n`,
  );
  const npm = spawnSync(
    "npm",
    ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact", `${PACKAGE}@${VERSION}`],
    { cwd: folder, encoding: "utf8", timeout: INSTALL_MS },
  );
  if (npm.status !== 0 || !existsSync(script)) {
    const said = npm.error?.message ?? npm.stderr.trim().split("\n").at(-1) ?? "";
    throw new Error(`npm could not install ${PACKAGE}@${VERSION}: ${said}`);
  }
  return script;
}

/** Starts the gateway on a free loopback port; it answers `GET /` when it serves. */
export async function startPortkey(
  script: string,
  env: Record<string, string>,
): Promise<{ child: Child; port: number }> {
  const port = await freePort();
  const child = spawnChild(process.execPath, [script, `--port=${port}`, "--headless"], {
    env: { ...env, NODE_ENV: "production" },
  });
  return { child, port };
}

/** The headers that make the gateway send a request to our upstream. */
export function portkeyHeaders(upstreamPort: number): [string, string][] {
  return [
    ["x-portkey-provider", "openai"],
    ["x-portkey-custom-host", `http://127.0.0.1:${upstreamPort}/v1`],
  ];
}
