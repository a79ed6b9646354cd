import http from "node:http";
import { STREAM, WHOLE } from "./chaos-farm.ts";

/** How a request ended, as its client saw it. */
export type Ending =
  | { readonly kind: "whole" }
  /** The connection broke after the reply had begun. */
  | { readonly kind: "broken" }
  /** An error, by its status or as a stream's first event. */
  | { readonly kind: "failed"; readonly status: number; readonly text: string }
  /** Neither: what must never be. */
  | { readonly kind: "wrong"; readonly text: string };

/** Clients of a TokenMan, each request with an id that the providers see, too. */
export class ChaosClient {
  readonly #agent = new http.Agent({ keepAlive: true });
  readonly #url: URL;

  constructor(proxy: string) {
    this.#url = new URL(proxy);
  }
  close(): void {
    this.#agent.destroy();
  }
  /** Never rejects. */
  ask(id: string, model: string, stream: boolean): Promise<Ending> {
    const body = JSON.stringify({
      model,
      max_tokens: 9,
      ...(stream && { stream }),
      messages: [{ role: "user", content: `request ${id}` }],
    });
    return new Promise((resolve) => {
      const request = http.request({
        host: this.#url.hostname,
        port: this.#url.port,
        method: "POST",
        path: "/v1/messages",
        agent: this.#agent,
        headers: {
          "Content-Type": "application/json",
          "Content-Length": Buffer.byteLength(body),
          "X-Chaos-Id": id,
        },
      });
      request.on("error", (cause) => resolve({ kind: "wrong", text: `no reply: ${cause.message}` }));
      request.on("response", (response) => {
        const status = response.statusCode!;
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => void chunks.push(chunk));
        response.on("error", () => resolve({ kind: "broken" }));
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString();
          if (status !== 200 || text.startsWith("event: error")) resolve({ kind: "failed", status, text });
          else if (text === (stream ? STREAM.toString() : WHOLE)) resolve({ kind: "whole" });
          else resolve({ kind: "wrong", text });
        });
      });
      request.end(body);
    });
  }
}
