import type { Provider } from "@tokenman/plugin-sdk";

/** How long a provider is left alone that refused the first request with hints. */
const REFUSED_MS = 600_000;
const HOSTS: Readonly<Record<string, string>> = { anthropic: "api.anthropic.com", openai: "api.openai.com" };

/** Which providers take hints. Unknown fields break some servers that copy a vendor's API. */
export class Takers {
  /** Until when one gets none; Infinity ago where it took some. */
  readonly #refusedUntil = new Map<string, number>();

  /** False for a while after a provider refused hints and before it ever took any. */
  takes(provider: Provider): boolean {
    return (this.#refusedUntil.get(provider.name) ?? 0) <= performance.now();
  }
  /** An attempt with hints ended with this status. True where hints stop because of it. */
  ended(provider: Provider, status: number): boolean {
    const known = this.#refusedUntil.get(provider.name);
    if (status >= 200 && status < 300) this.#refusedUntil.set(provider.name, Number.NEGATIVE_INFINITY);
    else if ((status === 400 || status === 422) && known !== Number.NEGATIVE_INFINITY) {
      this.#refusedUntil.set(provider.name, performance.now() + REFUSED_MS);
      return true;
    }
    return false;
  }
}

/** Whether a provider is the vendor itself: by its name, its address, or because it is the embedded one. */
export function isVendor(provider: Provider, vendor: "anthropic" | "openai"): boolean {
  if (provider.name === vendor || provider.answer !== undefined) return true;
  return provider.apiBase !== undefined && URL.parse(provider.apiBase)?.host === HOSTS[vendor];
}
