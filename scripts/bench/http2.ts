/**
 * HTTP/2 against HTTP/1.1 towards a provider, over TLS on loopback: what undici's `dispatch` costs the calling process,
 * as kernel/upstream/dispatch.ts calls it. Usage: node scripts/bench/http2.ts [rounds]
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import http2, { type Http2ServerRequest, type Http2ServerResponse } from "node:http2";
import type { AddressInfo } from "node:net";
import { selfSigned } from "@tokenman/plugin-sdk/testkit";
import { Client, type Dispatcher } from "undici";

const EVENT = `event: content_block_delta\ndata: ${JSON.stringify({ type: "content_block_delta", text: "word ".repeat(8) })}\n\n`;
const EVENTS = 40;

/** Answers JSON, or a stream of events where the path says so; tells which headers it got, as they were spelled. */
async function serve(): Promise<void> {
  const certificate = selfSigned();
  const answer = (request: Http2ServerRequest, response: Http2ServerResponse): void => {
    request.resume();
    request.on("end", () => {
      if (request.url === "/headers") response.end(JSON.stringify(request.rawHeaders));
      else if (request.url !== "/stream") response.end('{"usage":{"input_tokens":9,"output_tokens":9}}');
      else {
        response.setHeader("Content-Type", "text/event-stream");
        let left = EVENTS;
        const next = (): void => {
          response.write(EVENT);
          if (--left > 0) setImmediate(next);
          else response.end();
        };
        next();
      }
    });
  };
  const server = http2.createSecureServer({ ...certificate, allowHTTP1: true }, answer);
  server.listen(0, "127.0.0.1", () => {
    process.send?.({ port: (server.address() as AddressInfo).port, cert: certificate.cert });
  });
}

interface Sample {
  readonly cpuUs: number;
  readonly medianMs: number;
}
interface Job {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
  readonly concurrency: number;
  readonly requests: number;
}
const JOBS: readonly Job[] = [
  { name: "2 KB, 1 at once", path: "/", bytes: 2_000, concurrency: 1, requests: 1_000 },
  { name: "2 KB, 32 at once", path: "/", bytes: 2_000, concurrency: 32, requests: 4_000 },
  { name: "520 KB, 8 at once", path: "/", bytes: 520_000, concurrency: 8, requests: 250 },
  {
    name: "stream of 40 events, 32 at once",
    path: "/stream",
    bytes: 2_000,
    concurrency: 32,
    requests: 1_000,
  },
];

async function measure(rounds: number): Promise<void> {
  const child = spawn(process.execPath, [import.meta.filename, "--server"], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  const [{ port, cert }] = (await once(child, "message")) as [{ port: number; cert: string }];
  const origin = `https://localhost:${port}`;
  const open = (allowH2: boolean): Client =>
    new Client(origin, {
      allowH2,
      pipelining: allowH2 ? 100 : 1,
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: { ca: cert },
    });
  const one = [open(true)];
  const many = Array.from({ length: 32 }, () => open(false));
  const say = (text: string): boolean => process.stdout.write(`${text}\n`);
  for (const [version, clients] of [
    ["HTTP/1.1", many],
    ["HTTP/2", one],
  ] as const)
    say(`${version} sends ${await body(clients[0]!, "/headers")}`);
  for (const job of JOBS) {
    const samples: { readonly h1: Sample; readonly h2: Sample }[] = [];
    for (let round = 0; round <= rounds; round++) {
      const sample = { h1: await run(many, job), h2: await run(one, job) };
      // The first is to warm up.
      if (round > 0) samples.push(sample);
    }
    const ratio = (of: (sample: Sample) => number): string =>
      median(samples.map(({ h1, h2 }) => of(h2) / of(h1))).toFixed(2);
    const shown = (version: "h1" | "h2"): string =>
      `${median(samples.map((each) => each[version].cpuUs)).toFixed(0)} us CPU, ${median(samples.map((each) => each[version].medianMs)).toFixed(2)} ms`;
    say(
      `${job.name}: h1 ${shown("h1")}; h2 ${shown("h2")}; h2/h1 CPU ${ratio((s) => s.cpuUs)}, latency ${ratio((s) => s.medianMs)}`,
    );
  }
  await Promise.all([...one, ...many].map((client) => client.destroy()));
  child.kill();
}

async function run(clients: readonly Client[], { path, bytes, concurrency, requests }: Job): Promise<Sample> {
  const payload = Buffer.alloc(bytes, "x");
  const latencies: number[] = [];
  let left = requests;
  const began = process.cpuUsage();
  const worker = async (number: number): Promise<void> => {
    const client = clients[number % clients.length]!;
    while (left-- > 0) {
      const sent = performance.now();
      await ask(client, path, payload);
      latencies.push(performance.now() - sent);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, (_, number) => worker(number)));
  const { user, system } = process.cpuUsage(began);
  return { cpuUs: (user + system) / requests, medianMs: median(latencies) };
}

function ask(client: Client, path: string, payload: Buffer | null): Promise<Buffer[]> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const headers = [
      "X-Stainless-Lang",
      "js",
      "anthropic-version",
      "2023-06-01",
      "X-Twice",
      "1",
      "x-twice",
      "2",
    ];
    const handler = {
      onConnect() {},
      onHeaders: () => true,
      onData(chunk: Buffer) {
        chunks.push(chunk);
        return true;
      },
      onComplete: () => resolve(chunks),
      onError: reject,
    };
    const options = { path, method: "POST", headers, body: payload } as const;
    client.dispatch(
      options as unknown as Dispatcher.DispatchOptions,
      handler as unknown as Dispatcher.DispatchHandler,
    );
  });
}

async function body(client: Client, path: string): Promise<string> {
  return Buffer.concat(await ask(client, path, null)).toString();
}

function median(values: readonly number[]): number {
  return values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] ?? 0;
}

if (process.argv[2] === "--server") await serve();
else await measure(Number(process.argv[2] ?? 5));
