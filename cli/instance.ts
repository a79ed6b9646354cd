import type { Kernel } from "../kernel/kernel.ts";
import type { Restarter } from "./restarter.ts";
import type { ServiceManager } from "./service-manager.ts";
import type { Instance } from "./signals.ts";

/** What signals act on: the kernel, with the service manager told of what happens to it. */
export class RunningInstance implements Instance {
  readonly #kernel: Kernel;
  readonly #restarter: Restarter;
  readonly #manager: ServiceManager | undefined;

  constructor(kernel: Kernel, restarter: Restarter, manager: ServiceManager | undefined) {
    this.#kernel = kernel;
    this.#restarter = restarter;
    this.#manager = manager;
  }

  get generation(): Kernel["generation"] {
    return this.#kernel.generation;
  }
  async reload(reason: string): Promise<void> {
    if (this.#restarter.handedOver) return;
    void this.#manager?.reloading();
    const { ok, generation } = await this.#kernel.reload(reason);
    void this.#manager?.ready(
      ok ? `generation ${generation} serves` : `the reload failed; generation ${generation} serves on`,
    );
  }
  async restart(): Promise<void> {
    await this.#restarter.restart();
  }
  async shutdown(options: { readonly drainMs: number; readonly reason: string }): Promise<void> {
    this.#restarter.abort();
    // The manager waits for its main process, which is another one after a restart.
    if (!this.#restarter.handedOver)
      void this.#manager?.stopping(`finishing ${this.#kernel.status().activeExchanges} requests`);
    await this.#kernel.shutdown(options);
  }
  hurry(): void {
    this.#kernel.hurry();
  }
}
