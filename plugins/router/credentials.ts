import type { Candidate, CandidateCredential, Exchange, Provider, Secret } from "@tokenman/plugin-sdk";
import { hasCredentialInQuery } from "./carriers.ts";
import { ConfiguredProvider } from "./configured-provider.ts";
import { strangerOf } from "./owner.ts";
import type { Choice, Plan, RuledOut } from "./route-table.ts";

/** The choices that have a credential to go out with, and why the others have none. */
export interface Admission {
  /** A provider with several keys is one candidate with each of them, in a row. */
  readonly candidates: readonly Candidate[];
  readonly ruledOut: readonly RuledOut[];
  /** What went wrong where a key_ref could not be resolved. */
  readonly keyFailures: readonly unknown[];
}

/** What is asked of the exchange. */
export type Client = Pick<Exchange, "credential" | "subscription"> & {
  readonly request: Pick<Exchange["request"], "target">;
};

/** A key, or why there is none although one is configured. */
type Key = { readonly secret: Secret } | { readonly failure: unknown };
type Keys = readonly Key[];

const CLIENT: CandidateCredential = Object.freeze({ kind: "client" });
const NONE: CandidateCredential = Object.freeze({ kind: "none" });
const NO_KEY: Keys = Object.freeze([]);

/** Of one plan, with the client's credential and without: see {@link admit}. */
export interface Admissions {
  owned: Admission | undefined;
  bare: Admission | undefined;
}

/**
 * Gives each choice its credential, or rules it out. The client's own goes to the plan's owner and to nobody else; all
 * others need a key of their own, or must be declared to want none. Asynchronous only where a key comes from a file.
 */
export function admit(plan: Plan, client: Client): Admission | Promise<Admission> {
  if (!plan.isPlain || !isPlain(plan, client)) return worked(plan, client);
  // Nothing else of the request is asked then, and no key has to be waited for.
  const which = client.credential === undefined ? "bare" : "owned";
  plan.admissions[which] ??= shared(worked(plan, client) as Admission);
  return plan.admissions[which];
}

/** Whether what a plain plan makes of the request is what it makes of every other one. */
function isPlain({ strangers }: Plan, { credential, request }: Client): boolean {
  if (hasCredentialInQuery(request.target)) return false;
  return credential === undefined || strangerOf(strangers, credential) === undefined;
}

/** Many exchanges have it: none may change it for the others. */
function shared(admission: Admission): Admission {
  admission.candidates.forEach(Object.freeze);
  Object.freeze(admission.candidates);
  Object.freeze(admission.ruledOut);
  return admission;
}

function worked(plan: Plan, client: Client): Admission | Promise<Admission> {
  const keys = plan.choices.map((choice) => {
    const { provider } = choice;
    const isServed = provider.answer !== undefined || provider.auth === "none";
    return isServed || (choice === plan.owner && client.credential !== undefined) ? NO_KEY : keysOf(provider);
  });
  return keys.some((each) => each instanceof Promise)
    ? Promise.all(keys).then((resolved) => decide(plan, client, resolved))
    : decide(plan, client, keys as Keys[]);
}

function decide(plan: Plan, client: Client, keys: readonly Keys[]): Admission {
  const candidates: Candidate[] = [];
  const ruledOut: RuledOut[] = [];
  const keyFailures: unknown[] = [];
  const isInQuery = hasCredentialInQuery(client.request.target);
  const gone = (provider: Provider, reason: string) =>
    void ruledOut.push({ provider: provider.name, reason });
  for (const [index, choice] of plan.choices.entries()) {
    const { provider, model, reason } = choice;
    const own = keys[index]!;
    const isOwner = choice === plan.owner;
    const stranger =
      isOwner && client.credential !== undefined ? strangerOf(plan.strangers, client.credential) : undefined;
    for (const key of own) if ("failure" in key) keyFailures.push(key.failure);
    const credential = isOwner && client.credential !== undefined ? CLIENT : without(provider, own, isOwner);
    if (credential === undefined && !own.some((key) => "secret" in key))
      gone(provider, lack(choice, own, plan, client));
    else if (stranger !== undefined)
      gone(provider, `would get a credential that is by its shape of the ${stranger.name} format`);
    else if (isInQuery && !isOwner && provider.answer === undefined)
      gone(provider, "would get a credential that is in the request's query");
    else if (model !== undefined && credential === CLIENT && client.subscription)
      gone(provider, `would rename the model to ${model}, but the traffic of a subscription is not changed`);
    else {
      if (credential !== undefined)
        candidates.push({ provider, credential, reason, ...(model !== undefined && { model }) });
      else addKeys(choice, own, candidates, gone);
      continue;
    }
    if (plan.isBinding && index === 0) break;
  }
  return { candidates, ruledOut, keyFailures };
}

function addKeys(
  { provider, model, reason }: Choice,
  keys: Keys,
  candidates: Candidate[],
  gone: (provider: Provider, why: string) => void,
): void {
  for (const [index, key] of keys.entries()) {
    const which = `key ${index + 1} of ${keys.length}`;
    if ("failure" in key) gone(provider, `its ${which} could not be resolved`);
    else {
      candidates.push({
        provider,
        credential: { kind: "key", secret: key.secret },
        reason: keys.length === 1 ? reason : `${reason}, with ${which}`,
        ...(model !== undefined && { model }),
        ...(keys.length > 1 && { account: `${provider.name}#${index + 1}` }),
      });
    }
  }
}

/**
 * What a provider without a key goes out with where it does not get the client's credential; undefined where it does not
 * go out. Where the client sent none and no key is configured, the owner is asked without any, so that it can refuse in
 * its own words.
 */
function without(provider: Provider, keys: Keys, isOwner: boolean): CandidateCredential | undefined {
  if (provider.answer !== undefined || provider.auth === "none") return NONE;
  return isOwner && keys.length === 0 ? NONE : undefined;
}

function lack(choice: Choice, keys: Keys, { owner, unvouched }: Plan, { credential }: Client): string {
  const { provider } = choice;
  if (keys.length > 0) return "its key_ref could not be resolved";
  if (provider.auth === "key") return 'has auth = "key", but no key_ref';
  const own = 'has no key of its own (key_ref, or auth = "none")';
  if (credential === undefined) return `${own}, and the client sent none`;
  const whose = owner === undefined ? "is not known to belong to it" : `belongs to ${owner.provider.name}`;
  const remedy =
    choice === unvouched
      ? `; if it is meant to have that, set auth = "client" under [providers.${provider.name}] to vouch for its server`
      : "";
  return `${own}, and the client's credential ${whose}${remedy}`;
}

/** Whether the provider has a key of its own, which may be another one at the next request. */
export function hasKeys(provider: Provider): boolean {
  return provider instanceof ConfiguredProvider ? provider.keys.length > 0 : provider.key !== undefined;
}

function keysOf(provider: Provider): Keys | Promise<Keys> {
  const readers = provider instanceof ConfiguredProvider ? provider.keys : [() => provider.key?.()];
  if (readers.length === 0) return NO_KEY;
  const keys = readers.map(keyFrom);
  return keys.some((key) => key instanceof Promise)
    ? Promise.all(keys).then((all) => all.filter((key) => key !== undefined))
    : (keys as (Key | undefined)[]).filter((key) => key !== undefined);
}

/** Undefined where none is configured. */
function keyFrom(
  read: () => Promise<Secret | undefined> | Secret | undefined,
): Key | undefined | Promise<Key | undefined> {
  const keyOf = (secret: Secret | undefined) => (secret === undefined ? undefined : { secret });
  try {
    const secret = read();
    if (!(secret instanceof Promise)) return keyOf(secret);
    return secret.then(keyOf, (failure: unknown) => ({ failure }));
  } catch (failure) {
    return { failure };
  }
}
