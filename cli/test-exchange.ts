import { type Exchange, headerValue, type Outcome, type RawHeaders } from "@tokenman/plugin-sdk";
import type { CollectedReply, HostedRequest, HostedResult } from "@tokenman/plugin-sdk/testkit";
import { destination } from "../kernel/destination.ts";
import { drive } from "../kernel/driver.ts";
import { ExchangeState } from "../kernel/exchange.ts";
import { DEFAULT_PROJECT } from "../kernel/generation/index.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { KernelReply } from "../kernel/reply/reply.ts";
import { ReceivedRequest } from "../kernel/request.ts";
import { Connections } from "../kernel/upstream/connections.ts";
import { makeLaunch } from "../kernel/upstream/launch.ts";

const launch = makeLaunch(new Connections());
/** Bounds the copy of a coded body. */
const MAX_DECODED_BYTES = 256 * 1024 * 1024;

/** Takes one request through a kernel that listens nowhere, from the hooks to the last byte of the reply. */
export async function sendThrough(
  kernel: Kernel,
  request: HostedRequest,
  began: (exchange: Exchange) => void,
): Promise<HostedResult> {
  const { serving } = kernel;
  const { method, headers, body } = request;
  const place = destination(request.target, request.project ?? headerValue(headers, "x-tokenman-project"));
  const { dialect, format, path, sent } = serving.dialects.classify(method, place.path, headers);
  const project = place.project ?? DEFAULT_PROJECT;
  serving.generation.lease();
  const sender = { method, socket: { remoteAddress: "127.0.0.1" } };
  const received = new ReceivedRequest(sender, place.target, path, sent, headers);
  await received.take(body, MAX_DECODED_BYTES);
  const home = serving.home(project);
  const exchange = new ExchangeState({ project, request: received, dialect, format, home });
  began(exchange);
  const { pipeline } = exchange.home;
  pipeline.started(exchange);
  exchange.answeredAt = Number.POSITIVE_INFINITY;
  const answered = (await pipeline.request(exchange)) ?? (await drive(exchange, launch));
  const reply = await pipeline.response(answered, exchange);
  const collected = await collect(reply);
  const outcome = outcomeOf(exchange, reply, collected);
  await exchange.settle(outcome);
  return { exchange, outcome, reply: collected };
}

/** Reads a reply to its end, as a client would that takes every byte at once. */
function collect(reply: KernelReply): Promise<CollectedReply> {
  const { status, origin, plugin } = reply;
  const headers: RawHeaders = [...reply.finalHeaders()];
  const chunks: Buffer[] = [];
  const { promise, resolve } = Promise.withResolvers<CollectedReply>();
  const flow = reply.body();
  let complete = false;
  flow.whenDone((end) => {
    reply.attempt?.bodyEnded(end);
    resolve({ status, headers, body: Buffer.concat(chunks), complete, origin, plugin });
  });
  flow.start({
    data: (chunk) => void chunks.push(chunk),
    end() {
      complete = true;
    },
    fail() {},
  });
  return promise;
}

function outcomeOf(exchange: ExchangeState, reply: KernelReply, collected: CollectedReply): Outcome {
  const { refusal } = reply;
  return {
    kind: refusal !== undefined ? "refused" : collected.complete ? "answered" : "partial",
    status: reply.status,
    origin: reply.origin,
    code: refusal?.code ?? (collected.complete ? undefined : "TM_UPSTREAM_CUT"),
    message: refusal?.message,
    bytesSent: collected.body.length,
    durationMs: exchange.elapsedMs(),
    firstByteMs: undefined,
  };
}
