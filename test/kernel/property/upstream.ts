import { once } from "node:events";
import http, { type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { bodyOf, CUT_AFTER, CUT_BYTES, ERROR_BODY, eventsOf, STALL_AFTER } from "./plan.ts";
import type { Runs } from "./run.ts";

export interface Upstream extends AsyncDisposable {
  readonly url: string;
  /** Connections that are being used. */
  readonly busy: number;
}

/** All the providers that are reached over HTTP, told apart by the first part of the path. */
export async function startUpstream(runs: Runs): Promise<Upstream> {
  let busy = 0;
  const server = http.createServer(async (request, response) => {
    busy++;
    response.once("close", () => busy--);
    try {
      await answer(runs, request, response);
    } catch {
      // The other side left; what it was told before is checked there.
      response.destroy();
    }
  });
  server.keepAliveTimeout = 60_000;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get busy() {
      return busy;
    },
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
    },
  };
}

async function answer(runs: Runs, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const run = runs.of(request.headers["x-case"]);
  const { plan } = run;
  const provider = Number(/^\/p(\d)\//.exec(request.url!)![1]);
  const behaviour = plan.providers[provider]!;
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  const tags = request.rawHeaders.filter((_, index) => request.rawHeaders[index - 1] === "X-Tag");
  run.arrivals.push({ provider, body: Buffer.concat(chunks).toString(), tags });
  if (behaviour === "reset") {
    request.socket.resetAndDestroy();
    return;
  }
  if (behaviour === "silent") {
    if (plan.policy !== "hedge") run.leave();
    return;
  }
  if (behaviour === "error") {
    response.writeHead(500, { "Content-Type": "text/plain" });
    response.end(ERROR_BODY);
    return;
  }
  const cut = behaviour === "cut";
  if (!plan.stream) {
    const body = bodyOf(plan, provider);
    response.writeHead(200, { "Content-Length": body.length });
    // A half-closed connection, not a reset: what was sent before must arrive.
    if (cut) response.write(body.slice(0, CUT_BYTES), () => request.socket.end());
    else response.end(body);
    return;
  }
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  const events = eventsOf(plan, provider, behaviour).map((data) => `data: ${data}\n\n`);
  const sent = cut
    ? events.slice(0, CUT_AFTER)
    : behaviour === "stall"
      ? events.slice(0, STALL_AFTER)
      : events;
  // Some in one piece, some event by event.
  if (plan.number % 2 === 0) response.write(sent.join(""));
  else {
    for (const event of sent) {
      response.write(event);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  if (cut) response.write("", () => request.socket.end());
  else if (behaviour !== "stall") response.end();
}
