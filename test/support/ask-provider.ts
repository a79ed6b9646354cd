import {
  type Attempt,
  type Dialect,
  type Exchange,
  headerValue,
  type Provider,
  type ReplyInit,
} from "@tokenman/plugin-sdk";
import anthropic from "../../plugins/anthropic/index.ts";
import openai from "../../plugins/openai/index.ts";
import { fakeExchange, setUp } from "./fake-setup.ts";

const vendors = await Promise.all([setUp(anthropic), setUp(openai)]);
export const formats = vendors.flatMap((vendor) => vendor.contributed("format"));
export const dialects = vendors.flatMap((vendor) => vendor.contributed("dialect"));

export interface ProviderRequest {
  readonly method?: string;
  readonly path: string;
  readonly headers?: readonly string[];
  readonly body?: Buffer | string;
  readonly signal?: AbortSignal;
  readonly credentialHash?: string;
}

/** Asks an in-process provider as the kernel would, without one. */
export async function askProvider(provider: Provider, request: ProviderRequest): Promise<ReplyInit> {
  const { method = "POST", path, headers = [], body = "", signal, credentialHash = "" } = request;
  const dialect = dialectOf(method, path, headers);
  const format = formats.find((one) => one.name === dialect?.format);
  const attempt = { signal: signal ?? new AbortController().signal } as Attempt;
  const exchange = fakeExchange({ dialect, format, credentialHash } as Partial<Exchange>);
  return provider.answer!({ method, path, headers, body: Buffer.from(body) }, exchange, attempt);
}

function dialectOf(method: string, path: string, headers: readonly string[]): Dialect | undefined {
  const [pathname] = path.split("?");
  return dialects.find(
    (dialect) =>
      dialect.accepts?.(headers) !== false &&
      dialect.routes.some(
        (route) =>
          route.method === method && new RegExp(`^${route.path.replace(/:\w+/g, "[^/]+")}$`).test(pathname!),
      ),
  );
}

export async function bodyOf(reply: ReplyInit): Promise<Buffer> {
  const { body = "" } = reply;
  if (typeof body === "string" || Buffer.isBuffer(body)) return Buffer.from(body);
  const chunks: Buffer[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** A `fetch` for the vendors' SDKs that is answered by the provider, in this process. */
export function providerFetch(provider: Provider): typeof fetch {
  return async (input, init) => {
    const request = new Request(input, init);
    const url = new URL(request.url);
    const headers = [...request.headers].flat();
    const body = Buffer.from(await request.arrayBuffer());
    const credential = headerValue(headers, "authorization") ?? headerValue(headers, "x-api-key") ?? "";
    const reply = await askProvider(provider, {
      method: request.method,
      path: url.pathname + url.search,
      headers,
      body,
      signal: request.signal,
      credentialHash: credential,
    });
    const pairs: [string, string][] = [];
    for (let at = 0; at < (reply.headers?.length ?? 0); at += 2)
      pairs.push([reply.headers![at]!, reply.headers![at + 1]!]);
    const isStream =
      reply.body !== undefined && typeof reply.body !== "string" && !Buffer.isBuffer(reply.body);
    const stream = isStream
      ? ReadableStream.from(reply.body as AsyncIterable<Uint8Array>)
      : await bodyOf(reply);
    return new Response(stream as ConstructorParameters<typeof Response>[0], {
      status: reply.status,
      headers: pairs,
    });
  };
}
