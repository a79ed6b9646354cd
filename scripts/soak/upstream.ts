import { once } from "node:events";
import http from "node:http";
import type { AddressInfo } from "node:net";

export interface Upstream {
  readonly url: string;
  close(): void;
}

/** How many events a streamed answer has before its last. */
export const EVENTS = 6;

/** What is answered to a request that carries this mark: the same for the same mark. */
export function answerTo(mark: string, streamed: boolean): string {
  if (!streamed) return `{"id": "${mark}", "choices": [], "n": 1.0}`;
  const events = Array.from({ length: EVENTS }, (_, index) => `data: {"id":"${mark}","n":${index}}\n\n`);
  return `${events.join("")}data: [DONE]\n\n`;
}

/** Answers each request by the mark in it, and sends the stamp that it came with back. */
export async function startUpstream(): Promise<Upstream> {
  const server = http.createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = JSON.parse(Buffer.concat(chunks).toString()) as { user: string; stream?: boolean };
    const streamed = body.stream === true;
    const answer = answerTo(body.user, streamed);
    response.setHeader("X-Stamp-Upstream", request.headers["x-stamp"] ?? "");
    response.setHeader("Content-Type", streamed ? "text/event-stream" : "application/json");
    if (!streamed) {
      response.end(answer);
      return;
    }
    for (const event of answer.split(/(?<=\n\n)/)) {
      response.write(event);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    response.end();
  });
  server.on("error", () => {});
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}
