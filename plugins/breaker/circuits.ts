import type { Attempt, CircuitFigures, CircuitView, Exchange, Provider } from "@tokenman/plugin-sdk";
import { Circuit, type CircuitRules, EARLY, type Refusal, type Ticket } from "./circuit.ts";
import type { Judgement } from "./judge.ts";

/** Of how many models of a provider failures are counted apart; those of more are taken for the provider's own. */
const MAX_MODELS = 64;

const MAX_NAME = 200;

/** Leave to ask a provider, and the model that has a circuit of its own. */
export interface Admission {
  readonly own: Ticket;
  /** Undefined where the model had no circuit yet. */
  readonly ofModel: Ticket | undefined;
}

/** Told of a circuit that has changed; of a model's, where there is one. */
export type Tell = (provider: Provider, model: string | undefined) => void;

interface Entry {
  readonly circuit: Circuit;
  /** Where the provider was then: what is known of one server says nothing about another. */
  readonly apiBase: string | undefined;
  readonly windowMs: number;
  /** Models that failed lately, and nobody else: undefined while all is well. */
  models: Map<string, Circuit> | undefined;
  /** When it last answered properly, whatever model was asked for. */
  goodAt: number;
  /** What all get while the circuit is closed and there is none of a model: nothing is made for each of them. */
  free: Admission;
}

/**
 * The circuits of all providers, by name, and of those of their models that fail while others may not. A provider's own
 * counts whether it can be reached; a model's, what the provider says of it: see README.md. Kept over reloads. Times are
 * monotonic milliseconds.
 */
export class ProviderCircuits {
  readonly #entries = new Map<string, Entry>();
  readonly #now: () => number;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Asks to send an attempt. What is given comes back through {@link settle}. */
  admit(
    exchange: Exchange,
    attempt: Attempt,
    windowMs: number,
    rules: CircuitRules,
    tell: Tell,
  ): Admission | Refusal {
    const { provider } = attempt;
    const entry = this.#of(provider, windowMs);
    const { circuit } = entry;
    const models = circuit.isForced ? undefined : entry.models;
    if (circuit.state === "closed" && models === undefined) {
      if (entry.free.own !== circuit.free) entry.free = { own: circuit.free, ofModel: undefined };
      return entry.free;
    }
    const now = this.#now();
    const admit = (asked: Circuit, model: string | undefined): Ticket | Refusal => {
      const { state } = asked;
      const ticket = asked.admit(now, rules, attempt);
      if (asked.state !== state) tell(provider, model);
      return ticket;
    };
    const own = admit(circuit, undefined);
    if ("why" in own) return own;
    const model = models === undefined ? undefined : sentModel(exchange, attempt);
    const counting = model === undefined ? undefined : models!.get(model);
    if (counting === undefined) return { own, ofModel: undefined };
    const ofModel = admit(counting, model);
    if (!("why" in ofModel)) return { own, ofModel };
    // Its place as a probe is for another model.
    circuit.settle(own, "neither", now, rules);
    return { ...ofModel, isModels: true };
  }

  /** What came of it. */
  settle(
    exchange: Exchange,
    attempt: Attempt,
    { own, ofModel }: Admission,
    judgement: Judgement,
    rules: CircuitRules,
    tell: Tell,
  ): void {
    const { provider } = attempt;
    const entry = this.#known(provider);
    if (entry === undefined) return;
    const { circuit } = entry;
    const now = this.#now();
    if (judgement === "answered") entry.goodAt = now;
    let model: string | undefined;
    let counting: Circuit | undefined;
    if ((judgement === "failed" || entry.models !== undefined) && !circuit.isForced) {
      model = sentModel(exchange, attempt);
      counting = model === undefined ? undefined : counted(entry, model, judgement);
    }
    // Its own word that a model failed is an answer all the same.
    const reached = judgement === "failed" && counting !== undefined ? "answered" : judgement;
    if (circuit.settle(own, VERDICTS[reached], now, rules) !== undefined) tell(provider, undefined);
    if (counting === undefined) return;
    const verdict = judgement === "broken" ? "neither" : VERDICTS[judgement];
    if (counting.settle(ofModel ?? EARLY, verdict, now, rules) !== undefined) tell(provider, model);
    if (!counting.isQuiet(now)) return;
    entry.models?.delete(model!);
    if (entry.models?.size === 0) entry.models = undefined;
  }

  /** By hand; see {@link Circuit.force}. Its models' circuits are forgotten. */
  force(provider: Provider, windowMs: number, state: "open" | "closed" | "auto"): void {
    const entry = this.#of(provider, windowMs);
    entry.circuit.force(state, this.#now());
    entry.models = undefined;
  }

  view(provider: Provider, rules: CircuitRules): CircuitView {
    const now = this.#now();
    const entry = this.#known(provider);
    const own = figuresOf(entry?.circuit, now, rules);
    const models = [...(entry?.models ?? [])].map(([model, circuit]) => ({
      model,
      ...figuresOf(circuit, now, rules),
    }));
    const recentFailures = models.reduce((sum, each) => sum + each.recentFailures, own.recentFailures);
    const head = { provider: provider.name, forced: entry?.circuit.isForced ?? false };
    const shown = entry === undefined ? undefined : worst(entry, models);
    if (shown === undefined) return { ...head, ...own, recentFailures, models };
    const { model, ...figures } = shown;
    return { ...head, ...figures, reason: `${model}: ${figures.reason}`, models };
  }

  #known(provider: Provider): Entry | undefined {
    const entry = this.#entries.get(provider.name);
    return entry?.apiBase === provider.apiBase ? entry : undefined;
  }
  #of(provider: Provider, windowMs: number): Entry {
    const { name, apiBase } = provider;
    const known = this.#entries.get(name);
    if (known !== undefined && known.apiBase === apiBase && known.windowMs === windowMs) return known;
    const circuit = new Circuit(windowMs);
    const free: Admission = { own: circuit.free, ofModel: undefined };
    const entry: Entry = { circuit, apiBase, windowMs, models: undefined, goodAt: 0, free };
    this.#entries.set(name, entry);
    return entry;
  }
}

/** The model's circuit, which its first failure makes. */
function counted(entry: Entry, model: string, judgement: Judgement): Circuit | undefined {
  const known = entry.models?.get(model);
  if (known !== undefined || judgement !== "failed") return known;
  entry.models ??= new Map();
  if (entry.models.size >= MAX_MODELS) return undefined;
  const circuit = new Circuit(entry.windowMs);
  entry.models.set(model, circuit);
  return circuit;
}

/** The model's name as it is sent; undefined where the request names none. Clients may name it as long as they like. */
function sentModel(exchange: Exchange, { candidate }: Attempt): string | undefined {
  return (candidate.model ?? exchange.description?.model)?.slice(0, MAX_NAME);
}

const VERDICTS = { answered: "success", failed: "failure", broken: "failure", neither: "neither" } as const;

/** The model that stands for the provider: it is not asked for, and no other model was answered since. */
function worst(
  { circuit, models, goodAt }: Entry,
  figures: CircuitView["models"],
): CircuitView["models"][number] | undefined {
  if (circuit.state !== "closed" || circuit.isForced) return undefined;
  return figures.find(({ model }) => (models?.get(model)?.openedAt ?? -1) >= goodAt);
}

function figuresOf(circuit: Circuit | undefined, now: number, rules: CircuitRules): CircuitFigures {
  const { calls, failures } = circuit?.recent(now) ?? { calls: 0, failures: 0 };
  const openedAt = circuit?.openedAt;
  return {
    state: circuit?.state ?? "closed",
    failuresInRow: circuit?.failuresInRow ?? 0,
    recentCalls: calls,
    recentFailures: failures,
    openedAt: openedAt === undefined ? undefined : Math.round(Date.now() - (now - openedAt)),
    probeInMs: circuit?.probeInMs(now, rules),
    reason: circuit?.reason,
  };
}
