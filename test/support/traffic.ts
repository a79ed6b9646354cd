import http from "node:http";

/** Traffic of keep-alive clients, each with one connection after the other, and what became of it. */
export interface Traffic extends AsyncDisposable {
  /** Requests that were answered whole. */
  readonly whole: number;
  /** Of these, those whose connection ended with the reply, as it said. */
  readonly last: number;
  /** Everything else: refused, reset, cut, a wrong status or text. */
  readonly failures: readonly string[];
  /** Resolves when so many more have been answered whole, or one failed. */
  more(count: number): Promise<void>;
  /** Begins nothing new; resolves when all that was begun has ended. */
  stop(): Promise<void>;
}

const TEXT = "twenty pieces of text that must all arrive, in their order, and end";

/** Every second client asks for streams. A failure is never tried again, and its client stops. */
export function traffic(proxy: string, clients: number): Traffic {
  const agent = new http.Agent({ keepAlive: true, maxSockets: clients });
  const failures: string[] = [];
  const waiting = new Set<() => void>();
  let whole = 0;
  let last = 0;
  let stopped = false;
  let asked = 0;

  async function client(stream: boolean): Promise<void> {
    let failure: string | undefined;
    while (!stopped && failure === undefined) {
      failure = await ask(stream).catch((error: NodeJS.ErrnoException) => error.code ?? error.message);
      if (failure === undefined) whole++;
      else failures.push(failure);
      for (const look of waiting) look();
    }
  }

  /** Undefined where all is as it should be. */
  function ask(stream: boolean): Promise<string | undefined> {
    const { promise, resolve, reject } = Promise.withResolvers<string | undefined>();
    // No two are the same: none can be answered with another's reply.
    const content = `${asked++}: ${TEXT}`;
    const request = http.request(`${proxy}/v1/chat/completions`, { method: "POST", agent }, (reply) => {
      let text = "";
      reply.setEncoding("utf8");
      reply.on("data", (part: string) => {
        text += part;
      });
      reply.on("error", reject);
      reply.on("end", () => {
        if (reply.headers.connection === "close") last++;
        const said = stream ? streamed(text) : answered(text);
        if (reply.statusCode !== 200) resolve(`status ${reply.statusCode}: ${text}`);
        else resolve(said === content ? undefined : `not whole: ${text}`);
      });
    });
    request.on("error", reject);
    request.end(
      JSON.stringify({
        model: stream ? "mock-chunked-20-slow-10ms" : "mock-slow-20ms",
        stream,
        messages: [{ role: "user", content }],
      }),
    );
    return promise;
  }

  async function stop(): Promise<void> {
    stopped = true;
    await running;
    agent.destroy();
  }

  const running = Promise.all(Array.from({ length: clients }, (_, index) => client(index % 2 === 0)));
  return {
    get whole() {
      return whole;
    },
    get last() {
      return last;
    },
    failures,
    more(count) {
      const wanted = whole + count;
      return new Promise((resolve) => {
        const look = (): void => {
          if (whole < wanted && failures.length === 0) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
      });
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

interface Chunk {
  readonly choices: readonly { readonly delta?: { readonly content?: string } }[];
}

/** The text of a stream that ended as it should, else undefined. */
function streamed(text: string): string | undefined {
  const lines = text.split("\n").filter((line) => line.startsWith("data: "));
  if (lines.pop() !== "data: [DONE]") return undefined;
  const chunks = lines.map((line) => JSON.parse(line.slice(6)) as Chunk);
  return chunks.map(({ choices }) => choices[0]?.delta?.content ?? "").join("");
}

function answered(text: string): string | undefined {
  const { choices } = JSON.parse(text) as {
    readonly choices: readonly { readonly message: { readonly content: string } }[];
  };
  return choices[0]?.message.content;
}
