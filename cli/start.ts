import type { Invocation } from "./command.ts";
import { seconds, text } from "./value.ts";

/** `tokenman start`. In the foreground it resolves when TokenMan has shut down. */
export async function start({ options, print }: Invocation): Promise<number> {
  const config = text(options["config"]);
  const plugins = pluginsFlag(options);
  if (options["foreground"] === true) {
    const { runForeground } = await import("./foreground.ts");
    return runForeground({ config, plugins });
  }
  const { startDaemon } = await import("./daemon.ts");
  return startDaemon({ config, plugins, timeoutMs: seconds(options["timeout"], "--timeout", 15), print });
}

/** The value of `--plugins` as the loader takes it: "none" is the empty list. */
export function pluginsFlag(options: Readonly<Record<string, unknown>>): string | undefined {
  const flag = text(options["plugins"]);
  return flag === "none" ? "" : flag;
}
