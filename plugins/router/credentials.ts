import type { Candidate, CandidateCredential, Exchange, Provider, Secret } from "@tokenman/plugin-sdk";
import { hasCredentialInQuery } from "./carriers.ts";
import type { Plan, RuledOut } from "./route-table.ts";

/** The choices that have a credential to go out with, and why the others have none. */
export interface Admission {
  readonly candidates: readonly Candidate[];
  readonly ruledOut: readonly RuledOut[];
  /** What went wrong where a key_ref could not be resolved. */
  readonly keyFailures: readonly unknown[];
}

/** What is asked of the exchange. */
export type Client = Pick<Exchange, "credential" | "subscription" | "request">;

/** A key, none, or why there is none although one is configured. */
type Key = { readonly secret: Secret | undefined } | { readonly failure: unknown };

const CLIENT: CandidateCredential = Object.freeze({ kind: "client" });
const NONE: CandidateCredential = Object.freeze({ kind: "none" });
const NO_KEY: Key = Object.freeze({ secret: undefined });

/**
 * Gives each choice its credential, or rules it out. The client's own goes to the plan's owner and to nobody else; all
 * others need a key of their own, or must be declared to want none. Asynchronous only where a key comes from a file.
 */
export function admit(plan: Plan, client: Client): Admission | Promise<Admission> {
  const keys = plan.choices.map(({ provider }, index) => {
    const isServed = provider.answer !== undefined || provider.auth === "none";
    return isServed || (index === plan.owner && client.credential !== undefined) ? NO_KEY : keyOf(provider);
  });
  return keys.some((key) => key instanceof Promise)
    ? Promise.all(keys).then((resolved) => decide(plan, client, resolved))
    : decide(plan, client, keys as Key[]);
}

function decide(plan: Plan, client: Client, keys: readonly Key[]): Admission {
  const candidates: Candidate[] = [];
  const ruledOut: RuledOut[] = [];
  const keyFailures: unknown[] = [];
  const isInQuery = hasCredentialInQuery(client.request.target);
  for (const [index, { provider, model, reason }] of plan.choices.entries()) {
    const key = keys[index]!;
    const isOwner = index === plan.owner;
    const credential = isOwner && client.credential !== undefined ? CLIENT : own(provider, key, isOwner);
    if ("failure" in key) keyFailures.push(key.failure);
    if (credential === undefined) {
      ruledOut.push({
        provider: provider.name,
        reason: lack(provider, key, plan.choices[plan.owner]?.provider),
      });
    } else if (isInQuery && !isOwner && provider.answer === undefined) {
      ruledOut.push({
        provider: provider.name,
        reason: "would get a credential that is in the request's query",
      });
    } else if (model !== undefined && credential === CLIENT && client.subscription) {
      const why = `would rename the model to ${model}, but the traffic of a subscription is not changed`;
      ruledOut.push({ provider: provider.name, reason: why });
    } else {
      candidates.push({ provider, credential, reason, ...(model !== undefined && { model }) });
      continue;
    }
    if (plan.isBinding && index === 0) break;
  }
  return { candidates, ruledOut, keyFailures };
}

/**
 * What a provider goes out with when it does not get the client's credential. Where the client sent none and no key is
 * configured, the owner is asked without any, so that it can refuse in its own words.
 */
function own(provider: Provider, key: Key, isOwner: boolean): CandidateCredential | undefined {
  if (provider.answer !== undefined || provider.auth === "none") return NONE;
  if ("failure" in key) return undefined;
  if (key.secret !== undefined) return { kind: "key", secret: key.secret };
  return isOwner ? NONE : undefined;
}

function lack(provider: Provider, key: Key, owner: Provider | undefined): string {
  if ("failure" in key) return "its key_ref could not be resolved";
  if (provider.auth === "key") return 'has auth = "key", but no key_ref';
  const whose = owner === undefined ? "is not known to belong to it" : `belongs to ${owner.name}`;
  return `has no key of its own (key_ref, or auth = "none"), and the client's credential ${whose}`;
}

function keyOf(provider: Provider): Key | Promise<Key> {
  try {
    const secret = provider.key?.();
    if (!(secret instanceof Promise)) return { secret };
    return secret.then(
      (resolved) => ({ secret: resolved }),
      (failure: unknown) => ({ failure }),
    );
  } catch (failure) {
    return { failure };
  }
}
