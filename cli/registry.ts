import type { Plugin } from "@tokenman/plugin-sdk";
import type { FirstPartyRegistry } from "../kernel/load/index.ts";

/** A first-party plugin's module is loaded when a generation, or a command of its, needs it. */
const MODULES: Readonly<Record<string, () => Promise<{ readonly default: Plugin }>>> = {
  anthropic: () => import("../plugins/anthropic/index.ts"),
  openai: () => import("../plugins/openai/index.ts"),
  mock: () => import("../plugins/mock/index.ts"),
  router: () => import("../plugins/router/index.ts"),
  health: () => import("../plugins/health/index.ts"),
  "access-log": () => import("../plugins/access-log/index.ts"),
  watch: () => import("../plugins/watch/index.ts"),
  store: () => import("../plugins/store/index.ts"),
  recorder: () => import("../plugins/recorder/index.ts"),
  api: () => import("../plugins/api/index.ts"),
  metrics: () => import("../plugins/metrics/index.ts"),
  tokenizer: () => import("../plugins/tokenizer/index.ts"),
  savings: () => import("../plugins/savings/index.ts"),
  pricing: () => import("../plugins/pricing/index.ts"),
  budget: () => import("../plugins/budget/index.ts"),
  "rate-limit": () => import("../plugins/rate-limit/index.ts"),
  dedup: () => import("../plugins/dedup/index.ts"),
  rules: () => import("../plugins/rules/index.ts"),
  history: () => import("../plugins/history/index.ts"),
  summarize: () => import("../plugins/summarize/index.ts"),
  breaker: () => import("../plugins/breaker/index.ts"),
  hedge: () => import("../plugins/hedge/index.ts"),
  retry: () => import("../plugins/retry/index.ts"),
  cache: () => import("../plugins/cache/index.ts"),
  heartbeat: () => import("../plugins/heartbeat/index.ts"),
  "stream-sessions": () => import("../plugins/stream-sessions/index.ts"),
};

/** What TokenMan brings along. */
export const firstParty: FirstPartyRegistry = {
  names: () => Object.keys(MODULES),
  async load(name) {
    const load = MODULES[name];
    if (load === undefined) throw new RangeError(`no first-party plugin is named "${name}"`);
    return (await load()).default;
  },
  defaultOrder: [
    "tokenizer",
    "pricing",
    "savings",
    "store",
    "recorder",
    "metrics",
    "api",
    "access-log",
    "watch",
    "stream-sessions",
    "cache",
    "breaker",
    "budget",
    "rate-limit",
    "heartbeat",
    "dedup",
    "rules",
    "history",
    "summarize",
    "hedge",
    "retry",
  ],
  alwaysOn: ["anthropic", "openai", "mock", "router", "health"],
};
