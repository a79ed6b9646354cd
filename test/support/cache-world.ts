import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { headerValue } from "@tokenman/plugin-sdk";
import {
  type ClientReply,
  type RecordingUpstream,
  recordingUpstream,
  sendRequest,
  type VendorDialect,
} from "@tokenman/plugin-sdk/testkit";
import { startTokenman, type Tokenman } from "./kernel.ts";

const folders: string[] = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});
/** A folder that is gone when the file's tests have ended. */
export function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "cache-"));
  folders.push(folder);
  return folder;
}

/** A short request in a dialect. */
export function bodyOf(dialect: VendorDialect, more: object = {}): string {
  const content = [{ role: "user", content: "hi" }];
  return JSON.stringify({
    model: "m",
    ...(dialect === "openai-responses" ? { input: content } : { max_tokens: 9, messages: content }),
    ...more,
  });
}
export const BODY = bodyOf("anthropic-messages");

/** What differs from a short request to Anthropic by the client of the key "k1". */
export interface Ask {
  readonly path?: string;
  readonly body?: string | Buffer | undefined;
  readonly headers?: readonly string[];
  readonly key?: string;
  readonly method?: string;
}
/** A TokenMan with its cache before a recording upstream. */
interface Rig extends AsyncDisposable {
  readonly upstream: RecordingUpstream;
  readonly tokenman: Tokenman;
  ask(options?: Ask): Promise<ClientReply>;
}

/** `config`, and both vendors at the upstream. */
export function configFor(upstream: RecordingUpstream, config: string): string {
  const provider = (name: string): string =>
    `[providers.${name}]\napi_base = "${upstream.url}"\nauth = "client"\n`;
  return `${config}\n${provider("anthropic")}${provider("openai")}`;
}

/** Its end fails where anything was logged as an error. */
export async function rig(config = "", dataDir?: string): Promise<Rig> {
  const upstream = await recordingUpstream();
  const tokenman = await startTokenman({
    also: ["cache"],
    config: configFor(upstream, config),
    ...(dataDir !== undefined && { dataDir }),
  });
  let asking = 0;
  return {
    upstream,
    tokenman,
    async ask(options) {
      asking++;
      const reply = await ask(tokenman, options).finally(() => asking--);
      // The client has all of it a moment before the exchange has settled, and its answer is stored.
      while (asking === 0 && tokenman.kernel.status().activeExchanges > 0) await nextTurn();
      return reply;
    },
    async [Symbol.asyncDispose]() {
      await tokenman.stop();
      await upstream.stop();
      assert.deepEqual(upstream.failures, []);
      assert.deepEqual(
        tokenman.log.filter(({ level }) => level === "error"),
        [],
      );
    },
  };
}
export function ask(tokenman: Tokenman, options: Ask = {}): Promise<ClientReply> {
  const { path = "/v1/messages", key = "k1", headers = [], method } = options;
  const body = "body" in options ? options.body : BODY;
  const auth = path.includes("messages") ? ["x-api-key", key] : ["Authorization", `Bearer ${key}`];
  return sendRequest(tokenman.proxy + path, {
    headers: ["Content-Type", "application/json", ...auth, ...headers],
    ...(body !== undefined && { body }),
    ...(method !== undefined && { method }),
  });
}
/** What became of a request in the cache: HIT, MISS, BYPASS or COALESCED. */
export const cacheOf = (reply: ClientReply): string | undefined =>
  headerValue(reply.headers, "x-tokenman-cache");
/** The same of several requests, one after the other. */
export async function outcomes(rigged: Rig, ...asks: readonly Ask[]): Promise<(string | undefined)[]> {
  const found: (string | undefined)[] = [];
  for (const each of asks) found.push(cacheOf(await rigged.ask(each)));
  return found;
}
