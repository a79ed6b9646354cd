import type { RawHeaders } from "@tokenman/plugin-sdk";
import { type ClientReply, sendRequest } from "@tokenman/plugin-sdk/testkit";
import { EventClient } from "./event-client.ts";

export const CHAT: RawHeaders = ["Authorization", "Bearer sk-mine"];
export const ANTHROPIC: RawHeaders = ["X-Api-Key", "sk-ant-api-mine", "anthropic-version", "2023-06-01"];

/** One session, used as a client uses it. */
export class SessionClient {
  readonly id: string;
  readonly #base: string;
  readonly #headers: RawHeaders;

  private constructor(id: string, base: string, headers: RawHeaders) {
    this.id = id;
    this.#base = base;
    this.#headers = headers;
  }
  /** Creates a session at `base` (the proxy's address, a prefix behind it). Throws where it is refused. */
  static async create(base: string, headers: RawHeaders, body: string | object): Promise<SessionClient> {
    const reply = await post(`${base}/stream/create`, headers, body);
    if (reply.status !== 201) throw new Error(`refused with ${reply.status}: ${reply.body}`);
    return new SessionClient(JSON.parse(reply.body.toString()).id as string, base, headers);
  }
  send(body: string | object, headers = this.#headers): Promise<ClientReply> {
    return post(`${this.#base}/stream/${this.id}/send`, headers, body);
  }
  events(lastEventId?: number | string, headers = this.#headers): EventClient {
    const own = Object.fromEntries(
      headers.flatMap((name, at) => (at % 2 === 0 ? [[name, headers[at + 1]!]] : [])),
    ) as Record<string, string>;
    const resume = lastEventId === undefined ? {} : { "Last-Event-ID": String(lastEventId) };
    return new EventClient(`${this.#base}/stream/${this.id}/events`, { ...own, ...resume });
  }
  delete(path = "", headers = this.#headers): Promise<ClientReply> {
    return sendRequest(`${this.#base}/stream/${this.id}${path}`, { method: "DELETE", headers });
  }
}

export function post(url: string, headers: RawHeaders, body: string | object): Promise<ClientReply> {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return sendRequest(url, { headers: ["Content-Type", "application/json", ...headers], body: text });
}
