import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Logger, Plugin } from "@tokenman/plugin-sdk";
import { createKernel, type Kernel } from "../../kernel/kernel.ts";

export interface RunningKernel {
  readonly kernel: Kernel;
  /** Base URLs. */
  readonly proxy: string;
  readonly dashboard: string;
  /** A folder of its own; gone after the end. */
  readonly folder: string;
  readonly configFile: string;
  readonly logged: { readonly level: string; readonly facts: object; readonly message: string | undefined }[];
  [Symbol.asyncDispose](): Promise<void>;
}

/** A kernel on free ports with exactly these plugins, in this order. `config` is added to the config file's top. */
export async function runKernel(plugins: readonly Plugin[], config = ""): Promise<RunningKernel> {
  const folder = mkdtempSync(join(tmpdir(), "kernel-"));
  const configFile = join(folder, "tokenman.toml");
  const server = `[server]\nproxy_port = 0\ndashboard_port = 0\ndata_dir = ${JSON.stringify(folder)}\n`;
  writeFileSync(
    configFile,
    `${config}\n${server}[plugins]\ndir = ${JSON.stringify(join(folder, "plugins"))}\n`,
  );
  const logged: RunningKernel["logged"] = [];
  const log = Object.fromEntries(
    ["trace", "debug", "info", "warn", "error"].map((level) => [
      level,
      (facts: object, message?: string) => void logged.push({ level, facts, message }),
    ]),
  ) as unknown as Logger;
  const names = plugins.map(({ name }) => name);
  try {
    const kernel = await createKernel({
      version: "0.0.0-test",
      configFile,
      env: {},
      home: folder,
      registry: {
        names: () => names,
        load: async (name) => plugins[names.indexOf(name)]!,
        defaultOrder: names,
        alwaysOn: [],
      },
      planned: [],
      log,
    });
    const { proxyAddress, dashboardAddress } = await kernel.start();
    return {
      kernel,
      proxy: proxyAddress,
      dashboard: dashboardAddress,
      folder,
      configFile,
      logged,
      async [Symbol.asyncDispose]() {
        await kernel.shutdown({ drainMs: 0, reason: "the test has ended" });
        rmSync(folder, { recursive: true, force: true });
      },
    };
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
}
