import type { Plugin } from "../src/plugin.ts";
import { capturedLog, type LogLine } from "./captured-log.ts";
import { testHome } from "./home.ts";
import { currentHost, type HostedKernel, type TestHost } from "./host.ts";
import type { ConfigTable } from "./toml.ts";

const LEFT_OUT = ["access-log", "watch", "cache", "breaker", "retry"] as const;

export interface KernelSettings {
  /**
   * Loaded beside TokenMan's own plugins, the dialects, providers and router among them. They come first in the order;
   * where `config` sets `[plugins] order` or `pluginsFlag` a list, only those named there are loaded.
   */
  readonly plugins?: readonly Plugin[];
  /** tokenman.toml, as text or as a value. Ports and data folder are set beside it, over whatever it says. */
  readonly config?: string | ConfigTable;
  /** The value of `--plugins`. */
  readonly pluginsFlag?: string;
  /** `TOKENMAN_*` variables; `compression.holdout` is 0 unless it is here. The environment of the process is not looked at, but by `key_ref = "env:…"`. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Default: a temporary folder that is removed at the end. */
  readonly dataDir?: string;
  /**
   * TokenMan's default plugins that print, reload, answer or decide about attempts by themselves are left out, unless they
   * are named here.
   */
  readonly also?: readonly (typeof LEFT_OUT)[number][];
  /** Default: the one that came with the package, or was installed. */
  readonly host?: TestHost;
}

/** A running TokenMan with both of its ports. */
export interface RunningKernel {
  readonly proxy: string;
  readonly dashboard: string;
  readonly dataDir: string;
  /** The file that holds `config`: change it and `reload()`. */
  readonly configFile: string;
  /** Every line logged so far. */
  readonly log: readonly LogLine[];
  reload: HostedKernel["reload"];
  status: HostedKernel["status"];
  explain: HostedKernel["explain"];
  /** Ends it: requests under way are broken off. Further calls do nothing. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Starts a whole TokenMan on free loopback ports, with its own plugins and yours. Rejects with TokenmanErrors where the
 * config or a plugin is at fault, and has then left nothing behind.
 *
 * @example
 * await using kernel = await startKernel({ plugins: [mine] });
 * const reply = await fetch(`${kernel.proxy}/v1/messages`, { method: "POST", body });
 */
export async function startKernel(settings: KernelSettings = {}): Promise<RunningKernel> {
  const host = settings.host ?? currentHost();
  const { folder, dataDir, configFile, remove } = await testHome(settings.config ?? "", settings.dataDir);
  const lines: LogLine[] = [];
  let kernel: HostedKernel;
  try {
    kernel = await host.start({
      plugins: settings.plugins ?? [],
      without: LEFT_OUT.filter((name) => settings.also?.includes(name) !== true),
      configFile,
      home: folder,
      env: {
        TOKENMAN_SERVER_PROXY_PORT: "0",
        TOKENMAN_SERVER_DASHBOARD_PORT: "0",
        TOKENMAN_SERVER_DATA_DIR: dataDir,
        // A session is held out by chance, as a test sees it. A test of that says so in its own `env`.
        TOKENMAN_COMPRESSION_HOLDOUT: "0",
        ...settings.env,
      },
      pluginsFlag: settings.pluginsFlag,
      log: capturedLog(lines),
    });
  } catch (error) {
    await remove();
    throw error;
  }
  let stopped: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopped ??= kernel.shutdown({ drainMs: 0, reason: "the test has ended" }).finally(remove);
    return stopped;
  };
  return {
    proxy: kernel.proxyAddress,
    dashboard: kernel.dashboardAddress,
    dataDir,
    configFile,
    log: lines,
    reload: (reason) => kernel.reload(reason),
    status: () => kernel.status(),
    explain: (project) => kernel.explain(project),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
