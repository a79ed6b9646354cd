import http, { type IncomingHttpHeaders } from "node:http";
import { answerTo } from "./upstream.ts";

/** How a request goes: to the provider over HTTP or to the embedded mock, streamed or not, to its end or not. */
interface Kind {
  readonly model: "gpt-soak" | "mock";
  readonly stream: boolean;
  readonly project: string;
  readonly leaves: boolean;
}

export interface TrafficReport {
  readonly requests: number;
  /** Clients that left in the middle, as they were to. */
  readonly left: number;
  /** What was wrong, the first few. */
  readonly failures: readonly string[];
}

const MARKS = 64;

/** Clients that ask one request after the other. */
export class Traffic {
  readonly #url: URL;
  readonly #agent = new http.Agent({ keepAlive: true });
  readonly #workers: Promise<void>[] = [];
  readonly #concurrency: number;
  readonly #failures: string[] = [];
  #requests = 0;
  #left = 0;
  #running = false;

  constructor(proxy: string, concurrency: number) {
    this.#url = new URL(proxy);
    this.#concurrency = concurrency;
  }
  get report(): TrafficReport {
    return { requests: this.#requests, left: this.#left, failures: this.#failures };
  }
  start(): void {
    this.#running = true;
    for (let worker = 0; worker < this.#concurrency; worker++) this.#workers.push(this.#work(worker));
  }
  /** Resolves when all that were under way have ended. */
  async stop(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#workers.splice(0));
    this.#agent.destroy();
  }

  async #work(worker: number): Promise<void> {
    for (let turn = 0; this.#running; turn++) {
      // Marks come again, so that what plugins remember of texts is soon all they will.
      const mark = `${worker}-${turn % MARKS}`;
      const kind: Kind = {
        model: turn % 4 === 0 ? "mock" : "gpt-soak",
        stream: (worker + turn) % 2 === 0,
        project: turn % 3 === 0 ? "quiet" : "default",
        leaves: (worker + turn) % 29 === 0,
      };
      this.#requests++;
      try {
        await this.#ask(mark, kind);
      } catch (cause) {
        const said = cause instanceof Error ? cause.message : String(cause);
        if (this.#failures.length < 10) this.#failures.push(`${mark} ${JSON.stringify(kind)}: ${said}`);
      }
    }
  }

  #ask(mark: string, { model, stream, project, leaves }: Kind): Promise<void> {
    const body = JSON.stringify({ model, stream, user: mark, messages: [{ role: "user", content: mark }] });
    return new Promise((resolve, reject) => {
      const request = http.request({
        host: this.#url.hostname,
        port: this.#url.port,
        method: "POST",
        path: "/v1/chat/completions",
        agent: this.#agent,
        headers: {
          "Content-Type": "application/json",
          Authorization: "Bearer sk-soak",
          "X-Tokenman-Project": project,
        },
      });
      request.on("error", reject);
      request.on("response", (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          if (!leaves) return;
          this.#left++;
          response.destroy();
          resolve();
        });
        response.on("error", reject);
        response.on("end", () => {
          try {
            check(response.statusCode!, response.headers, Buffer.concat(chunks).toString(), {
              mark,
              model,
              stream,
              project,
            });
            resolve();
          } catch (cause) {
            reject(cause);
          }
        });
      });
      request.end(body);
    });
  }
}

function check(
  status: number,
  headers: IncomingHttpHeaders,
  body: string,
  { mark, model, stream, project }: Omit<Kind, "leaves"> & { readonly mark: string },
): void {
  if (status !== 200) throw new Error(`status ${status}: ${body.slice(0, 300)}`);
  const begun = headers["x-stamp-request"];
  const ended = headers["x-stamp-response"];
  if (project === "quiet") {
    if (begun !== undefined || ended !== undefined)
      throw new Error("the plugin is off for this project, and stamped it");
  } else if (begun === undefined || begun !== ended) throw new Error(`begun by ${begun}, ended by ${ended}`);
  if (model === "mock") {
    const whole = stream
      ? body.trimEnd().endsWith("data: [DONE]")
      : JSON.parse(body).object === "chat.completion";
    if (!whole) throw new Error(`not whole: ${body.slice(-200)}`);
    return;
  }
  const upstream = headers["x-stamp-upstream"];
  if (project !== "quiet" && upstream !== begun) throw new Error(`begun by ${begun}, sent by ${upstream}`);
  const expected = answerTo(mark, stream);
  if (body !== expected) throw new Error(`found ${body.slice(0, 300)}, expected ${expected.slice(0, 300)}`);
}
