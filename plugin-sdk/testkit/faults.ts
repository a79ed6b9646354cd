import type { RawHeaders } from "../src/headers.ts";
import type { ReplyInit } from "../src/reply.ts";
import { replyBytes, type Script } from "./script.ts";
import type { UpstreamCall } from "./upstream.ts";
import { dialectOf, errorEvent, errorReply, replyTo, textEvents } from "./vendor-reply.ts";

export interface BrokenReply {
  /** The reply to break. Default: a text in the request's dialect, as a stream where it asks for one. */
  readonly reply?: ReplyInit;
  /** Holds the break back until it resolves. */
  readonly when?: PromiseLike<unknown>;
}

/**
 * What providers do to their clients, as scripts for a {@link RecordingUpstream}: `upstream.next(faults.reset())`. The
 * ones that break a reply off take the reply to break; without one it is a text in the request's dialect. A fault waits
 * for events and gates, never for a clock.
 */
export const faults = Object.freeze({
  /** Resets the connection (RST) without a reply: as soon as the head has come, or when the whole request has. */
  reset(when: "head" | "request" = "request"): Script {
    return async (call) => {
      if (when === "request") await call.received;
      call.reset();
    };
  },
  /** Ends the connection cleanly (FIN) without a reply. */
  close(): Script {
    return async (call) => {
      await call.received;
      await call.end();
    };
  },
  /** Takes the request and stays silent until the peer leaves. */
  silent(): Script {
    return (call) => call.closed;
  },
  /** Holds the whole reply back until `gate` resolves. */
  slowHead(gate: PromiseLike<unknown>, reply?: ReplyInit): Script {
    return async (call) => {
      await call.received;
      await gate;
      await call.reply(reply ?? replyTo(call.request));
    };
  },
  /** Answers with an error of that status in the request's dialect, or with `body` as it stands. */
  status(
    status: number,
    options: { readonly headers?: RawHeaders; readonly body?: Buffer | string } = {},
  ): Script {
    return async (call) => {
      await call.received;
      const { headers = [], body } = options;
      const vendors = errorReply(dialectOf(call.request.target) ?? "openai-chat", status, headers);
      await call.reply(body === undefined ? vendors : { status, headers, body });
    };
  },
  /** Sends the head and `bytes` bytes of the body, then nothing more until the peer leaves. */
  stallAfter(bytes: number, options: BrokenReply = {}): Script {
    return broken(bytes, options, (call) => call.closed);
  },
  /**
   * Sends the head and `bytes` bytes of the body, then resets the connection. A reset takes with it what its receiver
   * has not read: one in this process is given time to, for one in another process let `when` tell that it has.
   */
  cutAfter(bytes: number, options: BrokenReply = {}): Script {
    return broken(bytes, options, async (call) => {
      if (options.when === undefined) await turns(READING_TURNS);
      call.reset();
    });
  },
  /** Sends the head and `bytes` bytes of the body, then ends the connection cleanly (FIN) in the middle of it. */
  endAfter(bytes: number, options: BrokenReply = {}): Script {
    return broken(bytes, options, (call) => call.end());
  },
  /** A stream that comes to its end without its last event, as of a provider that broke down and closed up nicely. */
  endsEarly(): Script {
    return async (call) => {
      await call.received;
      const events = textEvents(dialectOf(call.request.target) ?? "openai-chat");
      await call.reply({ status: 200, headers: STREAM, body: Buffer.concat(events.slice(0, -1)) });
    };
  },
  /** A stream of status 200 that reports an error after `after` regular events (default 0: it is the first). */
  eventError(options: { readonly after?: number; readonly type?: string } = {}): Script {
    return async (call) => {
      await call.received;
      const dialect = dialectOf(call.request.target) ?? "openai-chat";
      const events = textEvents(dialect).slice(0, options.after ?? 0);
      const body = Buffer.concat([...events, errorEvent(dialect, options.type)]);
      await call.reply({ status: 200, headers: STREAM, body });
    };
  },
  /** Answers with something that is not HTTP. */
  notHttp(): Script {
    return async (call) => {
      await call.received;
      await call.write("SSH-2.0-OpenSSH_9.9\r\n");
      await call.end();
    };
  },
  /** Sends the client elsewhere. */
  redirect(location: string, status = 307): Script {
    return async (call) => {
      await call.received;
      await call.reply({ status, headers: ["Location", location] });
    };
  },
});

const STREAM: RawHeaders = ["Content-Type", "text/event-stream; charset=utf-8"];

/** Turns of the event loop after which a peer in this process has read what was written. */
const READING_TURNS = 3;

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Sends a reply up to a byte of its body, all of it in the operating system's hands, then breaks it. */
function broken(
  bytes: number,
  { reply, when }: BrokenReply,
  end: (call: UpstreamCall) => void | Promise<void>,
): Script {
  return async (call) => {
    await call.received;
    for await (const part of replyBytes(reply ?? replyTo(call.request), bytes)) await call.write(part);
    await when;
    await end(call);
  };
}
