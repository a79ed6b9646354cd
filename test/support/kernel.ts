import {
  installHost,
  type KernelSettings,
  type RunningKernel,
  startKernel,
} from "@tokenman/plugin-sdk/testkit";
import { startHosted, testHost } from "../../cli/test-host.ts";
import type { Kernel } from "../../kernel/kernel.ts";

installHost(testHost);

/** A running TokenMan, with the kernel itself for what only TokenMan's own tests look at. */
export type Tokenman = RunningKernel & { readonly kernel: Kernel };

/**
 * Starts a whole TokenMan on free ports: its own plugins (but those that print, reload or try again by themselves), and `plugins`, which come first unless a list
 * places them. See {@link KernelSettings}.
 */
export async function startTokenman(settings: KernelSettings = {}): Promise<Tokenman> {
  let kernel: Kernel | undefined;
  const running = await startKernel({
    ...settings,
    host: {
      ...testHost,
      async start(options) {
        const started = await startHosted(options);
        kernel = started.kernel;
        return started.hosted;
      },
    },
  });
  return { ...running, kernel: kernel! };
}
