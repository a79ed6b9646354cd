import {
  type Attempt,
  AttemptBill,
  type Exchange,
  type HookObserver,
  headerValue,
  type Outcome,
  type ReloadEvent,
  type Reply,
  savingsOf,
} from "@tokenman/plugin-sdk";
import { Growth } from "./growth.ts";
import { Histogram } from "./histogram.ts";
import { type Count, LabelValues, noCount, Series } from "./series.ts";

const REQUEST_SECONDS = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120];
const FIRST_TOKEN_SECONDS = [0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60];
const PLUGIN_SECONDS = [0.00001, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5];
const OVERHEAD_SECONDS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1];

const MAX_PROVIDERS = 100;
const NONE = "none";

/**
 * Everything that is counted, from the start of the process on. One for all generations, so that a reload takes nothing
 * away. Its taps run for every exchange: they look up and add, and build nothing once a series is there.
 */
export class Meter {
  requests = 0;
  tokensIn = 0;
  tokensOut = 0;
  tokensSaved = 0;
  /** Nano-dollars. */
  cost = 0;
  costEstimated = 0;
  unpriced = 0;
  cacheHits = 0;
  cacheMisses = 0;
  cacheCoalesced = 0;
  readonly reloads = { ok: 0, failed: 0 };
  readonly lostRows = new Growth();
  /** Nano-dollars by cause; what a cause lost, as positive numbers. */
  readonly saved: Series<Count> = new Series(["kind"], noCount);
  readonly lost: Series<Count> = new Series(["kind"], noCount);
  readonly errors: Series<Count> = new Series(["type", "provider", "status_code"], noCount);
  readonly attempts: Series<Count> = new Series(["provider", "status"], noCount);
  readonly durations: Series<Histogram> = new Series(
    ["provider", "model", "streaming"],
    () => new Histogram(REQUEST_SECONDS),
  );
  readonly firstTokens: Series<Histogram> = new Series(
    ["provider"],
    () => new Histogram(FIRST_TOKEN_SECONDS),
  );
  readonly plugins: Series<Histogram> = new Series(
    ["middleware", "phase"],
    () => new Histogram(PLUGIN_SECONDS),
  );
  readonly failures: Series<Growth> = new Series(["plugin"], () => new Growth());
  readonly overhead: Histogram = new Histogram(OVERHEAD_SECONDS);
  readonly #providers = new LabelValues(MAX_PROVIDERS);
  #models: LabelValues;

  constructor(maxModels: number) {
    this.#models = new LabelValues(maxModels);
  }

  readonly response = (reply: Reply): void => {
    const said = headerValue(reply.headers, "x-tokenman-cache");
    if (said === undefined) return;
    if (said === "HIT") this.cacheHits++;
    else if (said === "MISS") this.cacheMisses++;
    else if (said === "COALESCED") this.cacheCoalesced++;
  };

  /** After the recorder's: it leaves the bills. */
  readonly settled = (exchange: Exchange, outcome: Outcome): void => {
    this.requests++;
    const { attempts, dialect } = exchange;
    let isUnpriced = false;
    for (const attempt of attempts) if (this.#attempt(attempt)) isUnpriced = true;
    if (isUnpriced) this.unpriced++;
    for (const { kind, tokens, nanoUsd = 0 } of savingsOf(exchange)) {
      if (tokens > 0) this.tokensSaved += tokens;
      if (nanoUsd > 0) this.saved.at(kind).value += nanoUsd;
      else if (nanoUsd < 0) this.lost.at(kind).value -= nanoUsd;
    }
    const answering = answeringOf(attempts);
    const provider = answering === undefined ? NONE : this.#providers.of(answering.provider.name, true);
    if (outcome.kind !== "answered" || outcome.status >= 400)
      this.errors.at(errorType(outcome), provider, String(outcome.status)).value++;

    const seconds = outcome.durationMs / 1000;
    const description = dialect?.generates === true ? exchange.description : undefined;
    const streaming = description?.stream === true;
    const model = description?.model;
    const label = model === undefined ? NONE : this.#models.of(model, outcome.status < 400);
    this.durations.at(provider, label, streaming ? "true" : "false").observe(seconds);

    const { firstByteMs } = outcome;
    if (firstByteMs === undefined || outcome.origin !== "provider") return;
    if (streaming && outcome.status < 400) this.firstTokens.at(provider).observe(firstByteMs / 1000);
    // With several attempts, the time before the last one was the policy's choice.
    const upstreamMs = attempts.length === 1 ? answering?.firstByteMs : undefined;
    if (upstreamMs !== undefined) this.overhead.observe(Math.max(0, firstByteMs - upstreamMs) / 1000);
  };

  readonly tapped: HookObserver["tapped"] = (plugin, hook, _exchange, durationMs) => {
    this.plugins.at(plugin, hook).observe(durationMs / 1000);
  };

  readonly reload = ({ ok }: Pick<ReloadEvent, "ok">): void => {
    if (ok) this.reloads.ok++;
    else this.reloads.failed++;
  };

  /** Counts what it used and cost; true where that is not known. */
  #attempt(attempt: Attempt): boolean {
    const { result, provider } = attempt;
    if (result === undefined || result.kind === "skipped") return false;
    const status = result.kind === "reply" ? String(result.status) : result.kind;
    this.attempts.at(this.#providers.of(provider.name, true), status).value++;
    const bill = attempt.get(AttemptBill);
    const usage = bill?.usage ?? attempt.usage;
    if (usage !== undefined) {
      this.tokensIn +=
        usage.inputTokens + usage.cacheReadTokens + usage.cacheWrite5mTokens + usage.cacheWrite1hTokens;
      this.tokensOut += usage.outputTokens;
    }
    if (bill?.cost !== undefined) {
      this.cost += bill.cost.total;
      if (bill.estimated) this.costEstimated += bill.cost.total;
    }
    return bill?.unpriced !== undefined;
  }
}

function answeringOf(attempts: readonly Attempt[]): Attempt | undefined {
  for (let at = attempts.length - 1; at >= 0; at--)
    if (attempts[at]!.result?.kind === "reply") return attempts[at];
  return attempts.at(-1);
}

/** TokenMan's code, or who or what it was that failed. */
function errorType({ kind, code, origin }: Outcome): string {
  return code ?? (kind === "answered" ? `${origin ?? "kernel"}_error` : kind);
}
