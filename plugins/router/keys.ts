import { type Attempt, type Exchange, type Logger, retryAfterMs, type Verdict } from "@tokenman/plugin-sdk";
import type { CoolDowns } from "./cool-downs.ts";

/** Statuses that are about the key: another key of the same provider may do better. */
const ABOUT_THE_KEY: ReadonlySet<number | undefined> = new Set([401, 403, 429]);
/** Those after which it is left alone for a while. A 403 may be about one model only. */
const COOLS: ReadonlySet<number | undefined> = new Set([401, 429]);

/** Takes turns among the keys of one provider. Attempts with a provider's only key, or with the client's, pass. */
export class Keys {
  readonly #coolDowns: CoolDowns;
  readonly #log: Logger;

  constructor(coolDowns: CoolDowns, log: Logger) {
    this.#coolDowns = coolDowns;
    this.#log = log;
  }

  /** Skips a key that is left alone, and one of a provider that has just failed for a reason that is not its key's. */
  readonly beforeUpstream = (exchange: Exchange, attempt: Attempt): Verdict | undefined => {
    const { provider, candidate } = attempt;
    const { account, credential } = candidate;
    if (account === undefined || credential.kind !== "key") return undefined;
    const coolDown = this.#coolDowns.find(provider.name, credential.secret);
    if (coolDown !== undefined) {
      const { status, forMs } = coolDown;
      const why = status === 429 ? "is at its limit (429)" : `was refused (${status})`;
      const skip = `its key ${account} ${why}; it is tried again in ${Math.ceil(forMs / 1_000)} s`;
      return { skip, retryAfterMs: forMs };
    }
    const other = exchange.attempts.find(
      (each) => each !== attempt && each.provider === provider && isAboutProvider(each),
    );
    if (other === undefined || other.candidate === candidate) return undefined;
    return { skip: "the same provider was asked with another key, and the key is not what is wrong" };
  };

  readonly attemptEnd = (_exchange: Exchange, attempt: Attempt): void => {
    const { provider, candidate, status, replyHeaders } = attempt;
    const { account, credential } = candidate;
    if (account === undefined || credential.kind !== "key" || !COOLS.has(status)) return;
    const toldMs = retryAfterMs(replyHeaders ?? [], Date.now());
    const { forMs } = this.#coolDowns.refused(provider.name, credential.secret, status!, toldMs);
    const message = `${provider.name} answered ${status} to its key ${account}, which is left alone for a while`;
    this.#log.warn({ provider: provider.name, key: account, status, forMs }, message);
  };
}

/** Whether the attempt went out, and what came of it, if anything has, is not about its key. */
function isAboutProvider({ result, status }: Attempt): boolean {
  return result?.kind !== "skipped" && !ABOUT_THE_KEY.has(status);
}
