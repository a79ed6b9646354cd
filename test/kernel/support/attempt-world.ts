import { once } from "node:events";
import http, { type IncomingMessage } from "node:http";
import type { AttemptPolicy, Plugin, Provider } from "@tokenman/plugin-sdk";
import { runKernel } from "../../support/running-kernel.ts";
import {
  chunkBytes,
  headBytes,
  type RecordingUpstream,
  recordingUpstream,
  type Script,
  steps,
  wholeReply,
} from "../../support/upstream.ts";
import { policy, providerOf, router, witness } from "./routing.ts";

/** What a client of a world sends. */
export const BODY = '{"texts":["hello"], "model": "m"}';
/** The head of a stream in chunks. */
export const SSE = ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"];
/** A provider that streams these events, and ends. */
export const stream = (...events: readonly string[]): Script =>
  steps(headBytes(200, SSE), ...events.map((data) => chunkBytes(`data: ${data}\n\n`)), chunkBytes(""));
/** A provider that answers so. */
export const status = (code: number, body = `status ${code}`): Script =>
  wholeReply({ status: code, headers: ["X-Mark", String(code)], body });
/** A provider whose connection breaks before it said anything. */
export const reset: Script = async (call) => {
  await call.received;
  call.reset();
};
interface World extends AsyncDisposable {
  readonly upstreams: readonly RecordingUpstream[];
  readonly events: readonly string[];
  readonly logged: Awaited<ReturnType<typeof runKernel>>["logged"];
  ask(): Promise<{
    status: number;
    text: string;
    provider: string | undefined;
    retryAfter: string | undefined;
    whole: boolean;
  }>;
  request(): http.ClientRequest;
  settled(): Promise<unknown>;
}

/** A kernel in front of one upstream per script, tried in that order as `decides` says. */
export async function world(
  scripts: readonly (Script | NonNullable<Provider["answer"]>)[],
  decides?: Partial<AttemptPolicy> & Pick<AttemptPolicy, "next">,
  more: readonly Plugin[] = [],
): Promise<World> {
  const upstreams: RecordingUpstream[] = [];
  const providers: Provider[] = [];
  for (const [index, script] of scripts.entries()) {
    const name = "abcdef"[index]!;
    // An in-process provider takes the request and two more arguments.
    if (script.length === 3) providers.push(providerOf(name, script as NonNullable<Provider["answer"]>));
    else {
      const upstream = await recordingUpstream({ script: script as Script });
      upstreams.push(upstream);
      providers.push(providerOf(name, upstream.url));
    }
  }
  const seen = witness();
  const kernel = await runKernel([
    seen.plugin,
    ...more,
    ...(decides === undefined ? [] : [policy(decides)]),
    router(() => providers),
  ]);
  const request = () => {
    const asked = http.request(`${kernel.proxy}/v1/test`, { method: "POST", agent: false });
    asked.end(BODY);
    return asked;
  };
  return {
    upstreams,
    events: seen.events,
    logged: kernel.logged,
    request,
    settled: () => seen.settled(),
    async ask() {
      const [reply] = (await once(request(), "response")) as [IncomingMessage];
      let text = "";
      let whole = true;
      try {
        for await (const chunk of reply) text += chunk;
      } catch {
        whole = false;
      }
      await seen.settled();
      return {
        status: reply.statusCode!,
        text,
        provider: reply.headers["x-tokenman-provider"] as string | undefined,
        retryAfter: reply.headers["retry-after"],
        whole,
      };
    },
    async [Symbol.asyncDispose]() {
      await kernel[Symbol.asyncDispose]();
      for (const upstream of upstreams) await upstream.stop();
    },
  };
}

/** Resolves when no connection of it is open. */
export async function closed(upstream: RecordingUpstream): Promise<void> {
  while (upstream.open > 0) await new Promise((resolve) => setImmediate(resolve));
}

/** How many requests each upstream has seen. */
export const requestsOf = ({ upstreams }: World) => upstreams.map(({ requests }) => requests.length);
