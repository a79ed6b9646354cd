import { type Exchange, headerValue, type RawHeaders, type TokenmanError } from "@tokenman/plugin-sdk";
import type { CollectedReply, HostedRequest, HostedResult } from "@tokenman/plugin-sdk/testkit";
import { destination } from "../kernel/destination.ts";
import { drive } from "../kernel/driver.ts";
import type { Sent } from "../kernel/end.ts";
import { begin } from "../kernel/intake.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { outcomeOf } from "../kernel/outcome.ts";
import type { KernelReply } from "../kernel/reply/reply.ts";
import { Connections } from "../kernel/upstream/connections.ts";
import { makeLaunch } from "../kernel/upstream/launch.ts";

const launch = makeLaunch(new Connections());

/** Takes one request through a kernel that listens nowhere, from the hooks to the last byte of the reply. */
export async function sendThrough(
  kernel: Kernel,
  request: HostedRequest,
  began: (exchange: Exchange) => void,
): Promise<HostedResult> {
  const { serving } = kernel;
  const { method, headers, body } = request;
  const place = destination(request.target, request.project ?? headerValue(headers, "x-tokenman-project"));
  const sender = { method, socket: { remoteAddress: "127.0.0.1" } };
  const classified = serving.dialects.classify(method, place.path, headers);
  const exchange = begin(serving, sender, place, headers, classified);
  await exchange.request.take(body, serving.limits.decodedBytes);
  began(exchange);
  const { pipeline } = exchange.home;
  pipeline.started(exchange);
  exchange.answeredAt = Number.POSITIVE_INFINITY;
  const answered = (await pipeline.request(exchange)) ?? (await drive(exchange, launch));
  const reply = await pipeline.response(answered, exchange);
  const { collected, sent } = await collect(reply);
  const outcome = outcomeOf(exchange, reply, sent);
  await exchange.settle(outcome);
  return { exchange, outcome, reply: collected };
}

interface Collected {
  readonly collected: CollectedReply;
  readonly sent: Sent;
}

/** Reads a reply to its end, as a client would that takes every byte at once. */
function collect(reply: KernelReply): Promise<Collected> {
  const { status, origin, plugin } = reply;
  const headers: RawHeaders = [...reply.finalHeaders()];
  const chunks: Buffer[] = [];
  const { promise, resolve } = Promise.withResolvers<Collected>();
  const flow = reply.body();
  let complete = false;
  let error: TokenmanError | undefined;
  flow.whenDone((end) => {
    reply.attempt?.bodyEnded(end);
    const body = Buffer.concat(chunks);
    resolve({
      collected: { status, headers, body, complete, origin, plugin },
      sent: {
        end: complete ? "whole" : "cut",
        headSent: true,
        error,
        bytes: body.length,
        firstByteMs: undefined,
        body: end,
      },
    });
  });
  flow.start({
    data: (chunk) => void chunks.push(chunk),
    end() {
      complete = true;
    },
    fail: (cause) => {
      error = cause;
    },
  });
  return promise;
}
