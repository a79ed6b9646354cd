import assert from "node:assert/strict";
import {
  type ClientReply,
  type RecordingUpstream,
  recordingUpstream,
  sendRequest,
} from "@tokenman/plugin-sdk/testkit";
import { startTokenman, type Tokenman } from "./kernel.ts";

/** A TokenMan that only routes and tries again, before several recording upstreams. */
export interface Routed extends AsyncDisposable {
  readonly tokenman: Tokenman;
  readonly upstreams: readonly RecordingUpstream[];
  /** How many requests each upstream has had. */
  counts(): number[];
  /** Posts JSON to a path of the proxy. */
  post(path: string, body: object, headers?: readonly string[]): Promise<ClientReply>;
  get(path: string, headers?: readonly string[]): Promise<ClientReply>;
}

/** `config` is given the upstreams' URLs. `plugins`: the features to load; by default nothing but "retry". */
export async function startRouted(
  count: number,
  config: (urls: readonly string[]) => string,
  plugins = "retry",
): Promise<Routed> {
  const upstreams = await Promise.all(Array.from({ length: count }, () => recordingUpstream()));
  const tokenman = await startTokenman({
    config: config(upstreams.map(({ url }) => url)),
    pluginsFlag: plugins,
    also: ["retry", "breaker"],
  }).catch(async (error: unknown) => {
    for (const upstream of upstreams) await upstream.stop();
    throw error;
  });
  return {
    tokenman,
    upstreams,
    counts: () => upstreams.map(({ requests }) => requests.length),
    post: (path, body, headers = []) =>
      sendRequest(tokenman.proxy + path, {
        method: "POST",
        headers: ["Content-Type", "application/json", ...headers],
        body: JSON.stringify(body),
      }),
    get: (path, headers = []) => sendRequest(tokenman.proxy + path, { headers }),
    async [Symbol.asyncDispose]() {
      await tokenman.stop();
      for (const upstream of upstreams) await upstream.stop();
      assert.deepEqual(
        upstreams.flatMap(({ failures }) => failures),
        [],
      );
    },
  };
}

/** A `[providers.NAME]` table. */
export function provider(name: string, values: Readonly<Record<string, unknown>>): string {
  const lines = Object.entries(values).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  return `[providers.${name}]\n${lines.join("\n")}\n`;
}
