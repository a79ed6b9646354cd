import type { Provider } from "@tokenman/plugin-sdk";
import { mockPlugin } from "../../plugins/mock/index.ts";
import { askProvider, type ProviderRequest } from "./ask-provider.ts";
import { setUp } from "./fake-setup.ts";

/** A mock with a clock that stands, and a log of the delays that it would have made. */
export async function mock(config: object = {}, kept?: ReadonlyMap<string, unknown>) {
  const clock = { now: Date.parse("2026-06-01T00:00:00Z") };
  const slept: number[] = [];
  const plugin = mockPlugin({
    now: () => clock.now,
    async sleep(ms, signal) {
      signal.throwIfAborted();
      slept.push(ms);
    },
  });
  const setup = await setUp(plugin, { config, ...(kept && { kept }) });
  const provider = setup.contributed("provider")[0] as Provider;
  const ask = (path: string, body: unknown, more: Partial<ProviderRequest> = {}) =>
    askProvider(provider, { path, body: typeof body === "string" ? body : JSON.stringify(body), ...more });
  return { provider, ask, clock, slept, setup };
}

/** Where each vendor's main dialect is asked. */
export const MESSAGES = "/v1/messages";
export const CHAT = "/v1/chat/completions";
/** What a user says in a conversation. */
export const user = (content: unknown) => ({ role: "user", content });
