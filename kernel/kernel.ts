import crypto from "node:crypto";
import { type HostStatus, type ReloadEvent, TokenmanError } from "@tokenman/plugin-sdk";
import { Assembly, type AssemblyOptions } from "./assembly.ts";
import type { Config } from "./config/index.ts";
import { handleDashboard } from "./dashboard.ts";
import { Door } from "./door.ts";
import { inTime } from "./generation/deadline.ts";
import {
  type Explanation,
  explain,
  explanationText,
  type Generation,
  GenerationManager,
} from "./generation/index.ts";
import { instanceKey } from "./instance-key.ts";
import { Intake } from "./intake.ts";
import { KeyedHash } from "./keyed-hash.ts";
import { type Addresses, type HandedSockets, Ports } from "./ports.ts";
import { Refusals } from "./refusals.ts";
import { Serving } from "./serving.ts";
import { ask } from "./upstream/ask.ts";
import { Connections } from "./upstream/connections.ts";

export type { Addresses, HandedSockets } from "./ports.ts";
export type KernelOptions = AssemblyOptions;

const LAST_MOMENT_MS = 2_000;
/** An exchange whose client has gone may still have readers when all connections have ended. */
const LEAVE_REST_MS = 30_000;

/** Loads everything, without listening. Rejects with TokenmanErrors that list all problems. */
export async function createKernel(options: KernelOptions): Promise<Kernel> {
  const kernel = new Kernel(options);
  await kernel.load();
  return kernel;
}

/** A running TokenMan: configuration, generations and two listening ports. */
export class Kernel {
  readonly bootId = crypto.randomUUID();
  readonly startedAt = Date.now();
  readonly #options: KernelOptions;
  readonly #connections: Connections;
  readonly #assembly: Assembly;
  /** Its key is made when it is first needed: not by a command that only looks. */
  readonly #hash = new KeyedHash(() => instanceKey(this.#assembly.dataDir));
  readonly #manager: GenerationManager<Serving>;
  readonly #refusals: Refusals;
  readonly #intake: Intake;
  #config: Config | undefined;
  /** Of that config. */
  #warnings: readonly string[] = [];
  #ports: Ports | undefined;
  /** No request is taken any more. */
  #draining = false;
  /** Another process serves the ports; what comes on connections that are still open here is served here. */
  #leaving = false;
  #shutdown: Promise<void> | undefined;
  readonly #shutdownBegun = Promise.withResolvers<void>();

  constructor(options: KernelOptions) {
    const { env, log } = options;
    this.#options = options;
    this.#connections = new Connections({ env });
    this.#assembly = new Assembly(options, {
      bootId: this.bootId,
      keyFor: (purpose) => this.#hash.keyFor(purpose),
      reload: (reason) => this.reload(reason),
      status: () => this.status(),
      ask: (provider, question) => ask(this.#connections, this.#streamIdleMs, provider, question),
      exchange: (request) => this.#intake.exchange(request),
    });
    this.#manager = new GenerationManager({
      build: async (id) => {
        const { generation, config, warnings } = await this.#assembly.build(id);
        this.#config = config;
        this.#warnings = warnings;
        return new Serving(generation, config, this.#hash, log);
      },
      log,
    });
    this.#refusals = new Refusals(log);
    this.#intake = new Intake({
      connections: this.#connections,
      door: new Door("proxy", this.#refusals, log),
      log,
      serving: () => this.#manager.current,
      draining: () => this.#draining,
      closing: () => this.#draining || this.#leaving,
    });
  }

  async load(): Promise<void> {
    try {
      await this.#manager.start();
    } catch (error) {
      this.#assembly.unmake();
      throw error;
    }
  }
  get config(): Config {
    if (this.#config === undefined) throw new TokenmanError("TM_INTERNAL", "the kernel is not loaded yet");
    return this.#config;
  }
  get #streamIdleMs(): number {
    return this.config.server.stream_timeout * 1_000;
  }
  get serving(): Serving {
    return this.#manager.current;
  }
  get generation(): Generation {
    return this.serving.generation;
  }

  /**
   * Opens both ports, or serves the sockets that another process handed over, where they are what the config wants.
   * Rejects with TM_PORT_IN_USE, TM_LISTEN or TM_DATA_DIR; then none is open, and all is given back.
   */
  async start(handed: HandedSockets = {}): Promise<Addresses> {
    try {
      // Read now, from the disk, which the loop must not touch while it proxies.
      this.#hash.prepare();
      this.#ports = await this.#open(handed);
    } catch (error) {
      await this.shutdown({ drainMs: 0, reason: "it cannot serve" });
      this.#assembly.unmake();
      throw error;
    }
    this.#assembly.served();
    return this.#ports.addresses;
  }
  async #open(handed: HandedSockets): Promise<Ports> {
    const { log } = this.#options;
    const door = new Door("dashboard", this.#refusals, log);
    const ports = new Ports({
      server: this.config.server,
      log,
      handed,
      handlers: {
        proxy: (message, response, expects) => this.#intake.handle(message, response, expects),
        dashboard: (message, response, expects) =>
          handleDashboard(door, this.serving, message, response, expects),
      },
    });
    await ports.open();
    return ports;
  }

  /** The listening sockets, for another process that is to serve them. */
  get sockets(): HandedSockets {
    return this.#ports?.sockets ?? {};
  }

  /** Builds a new generation and swaps it in, or keeps the old one. Never rejects. */
  async reload(reason: string): Promise<ReloadEvent> {
    if (this.#draining || this.#leaving) {
      return { ok: false, generation: this.generation.id, error: "TokenMan is shutting down" };
    }
    const before = this.generation;
    const event = await this.#manager.reload(reason);
    if (this.generation !== before)
      this.#connections.keepOnly(this.generation.registry.all("provider"), this.#streamIdleMs);
    return event;
  }

  status(): HostStatus {
    return {
      pid: process.pid,
      startedAt: this.startedAt,
      generation: this.generation.id,
      activeExchanges: this.#intake.active,
      refusals: this.#refusals.counts,
      proxyAddress: "",
      dashboardAddress: "",
      ...this.#ports?.addresses,
      lastReload: this.#manager.lastReload,
      draining: this.#draining || this.#leaving,
      plugins: this.generation.statuses(),
    };
  }
  explain(project?: string): Explanation {
    const explained = explain(this.generation, project);
    return { ...explained, warnings: [...this.#warnings, ...explained.warnings] };
  }
  explainText(project?: string): string {
    return explanationText(this.explain(project));
  }

  /**
   * Leaves the ports to another process that serves them by now. Connections that are open here stay, and what comes on
   * them is served with `Connection: close`; an idle one is closed when its announced keep-alive time is over, not
   * before: a request may be on its way. Resolves when all have ended and everything is given back; what is still there
   * after `drainMs` is broken off. A shutdown meanwhile goes before.
   */
  async leave({ drainMs, reason }: { readonly drainMs: number; readonly reason: string }): Promise<void> {
    this.#leaving = true;
    this.#options.log.info(
      { reason, activeExchanges: this.#intake.active },
      "leaving the ports to another process",
    );
    void this.#manager.drain();
    const gone = this.#ports?.leave() ?? Promise.resolve();
    const isGone = await inTime(drainMs, Promise.race([gone, this.#shutdownBegun.promise]));
    await this.shutdown({ drainMs: isGone ? LEAVE_REST_MS : 0, reason });
  }

  /**
   * Stops accepting, lets requests in flight end for `drainMs`, then breaks off the rest and gives everything back.
   * Calls while it runs join it.
   */
  shutdown(options: { readonly drainMs: number; readonly reason: string }): Promise<void> {
    this.#shutdown ??= this.#close(options);
    return this.#shutdown;
  }
  async #close({ drainMs, reason }: { readonly drainMs: number; readonly reason: string }): Promise<void> {
    const { log } = this.#options;
    log.info({ reason, activeExchanges: this.#intake.active }, "shutting down");
    this.#shutdownBegun.resolve();
    const drained = this.#leaving ? Promise.resolve() : this.#manager.drain();
    if (!this.#leaving) this.#ports?.stopAccepting();
    this.#draining = true;
    this.#ports?.closeIdle();
    if (!(await inTime(drainMs, Promise.all([drained, this.#intake.whenIdle()])))) {
      log.warn({ activeExchanges: this.#intake.active }, "requests did not end in time and are broken off");
      this.#intake.abortAll();
      await inTime(LAST_MOMENT_MS, this.#intake.whenIdle());
    }
    this.#ports?.destroy();
    this.#refusals.close();
    await this.#manager.close();
    this.#connections.close();
  }
  /** Breaks off what is in flight, for a second signal: the drain of a running shutdown ends at once. */
  hurry(): void {
    this.#intake.abortAll();
  }
}
