import type { Exchange, Outcome } from "../src/exchange.ts";
import { headerValue, type RawHeaders } from "../src/headers.ts";
import { definePlugin, type HostStatus, type Plugin } from "../src/plugin.ts";
import type { Provider, UpstreamRequest } from "../src/provider.ts";
import type { ReplyInit } from "../src/reply.ts";
import type { ServiceToken } from "../src/service.ts";
import { capturedLog, type LogLine } from "./captured-log.ts";
import { testHome } from "./home.ts";
import { type CollectedReply, currentHost, type HostedPlugins, type TestHost } from "./host.ts";
import { atSection, type ConfigTable } from "./toml.ts";

export interface PluginSettings {
  /** The plugin's own section of the config file. */
  readonly config?: ConfigTable;
  /** The rest of the file: projects, the plugin's extra sections. */
  readonly file?: ConfigTable;
  /** What stands in for the services that the plugin needs, by the names it gives them in `needs`. */
  readonly services?: Readonly<Record<string, unknown>>;
  /** The providers that a request may go to, in this order, each by its name. Default: one, "upstream". */
  readonly providers?: readonly string[];
  /** Default: the one that came with the package, or was installed. */
  readonly host?: TestHost;
}

/** A request of a client. */
export interface TestRequest {
  /** Default: POST, and GET without a body. */
  readonly method?: string;
  /** Path and query: it decides the dialect. */
  readonly path: string;
  /** Default: a JSON content type and an API key. */
  readonly headers?: RawHeaders;
  /** Bytes as they are; anything else is sent as JSON. */
  readonly body?: unknown;
  readonly project?: string;
}

/** A request as the plugin let it go, to which provider. */
export interface SentRequest extends UpstreamRequest {
  readonly provider: string;
  header(name: string): string | undefined;
  /** The body parsed as JSON. Throws SyntaxError. */
  json(): unknown;
}

/** What a provider answers: a reply, or what gives one. A throw is a connection that failed. */
export type Answer = ReplyInit | ((request: SentRequest) => ReplyInit | Promise<ReplyInit>);

export interface Sent {
  /** What went upstream, one for each attempt; none where the plugin answered or refused. */
  readonly upstream: readonly SentRequest[];
  /** What the client got. */
  readonly reply: CollectedReply;
  readonly outcome: Outcome;
  /** The exchange itself, after its end. */
  readonly exchange: Exchange;
}

/** One plugin, set up. */
export interface PluginRun {
  /**
   * Sends a request through the plugin's hooks: `request`, `beforeUpstream` for each attempt, `response`, `settled`.
   * `answer` is what the provider says; the default is status 200 and `{}`.
   */
  send(request: TestRequest, answer?: Answer): Promise<Sent>;
  readonly log: readonly LogLine[];
  /** The plugin's failures, and whether it is quarantined. */
  status(): HostStatus;
  reload: HostedPlugins["reload"];
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const HEADERS: RawHeaders = ["Content-Type", "application/json", "Authorization", "Bearer test-key"];

/**
 * Sets one plugin up and runs requests through its hooks, without sockets. Exchanges, edits, replies, time-outs and the
 * error policy are TokenMan's own; only the client and the provider are made up. Rejects with TokenmanErrors where the
 * config or the set-up fails.
 *
 * @example
 * await using run = await runPlugin(mine, { config: { word: "please" } });
 * const { upstream } = await run.send({ path: "/v1/messages", body: { model: "m", messages: [] } });
 * assert.match(String(upstream[0]?.body), /please/);
 */
export async function runPlugin(plugin: Plugin, settings: PluginSettings = {}): Promise<PluginRun> {
  const host = settings.host ?? currentHost();
  const section = plugin.section ?? `plugins.configs.${plugin.name}`;
  const file = merge(atSection(section, settings.config ?? {}), settings.file ?? {});
  const home = await testHome(file);
  const lines: LogLine[] = [];
  const provider = new StandIn(settings.providers ?? ["upstream"]);
  let plugins: HostedPlugins;
  try {
    plugins = await host.load({
      plugins: [plugin, backdrop(plugin, settings.services ?? {}, provider)],
      without: [],
      configFile: home.configFile,
      home: home.folder,
      env: { TOKENMAN_SERVER_DATA_DIR: home.dataDir },
      pluginsFlag: undefined,
      log: capturedLog(lines),
    });
  } catch (error) {
    await home.remove();
    throw error;
  }
  let stopped: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopped ??= plugins.dispose().finally(home.remove);
    return stopped;
  };
  return {
    log: lines,
    status: () => plugins.status(),
    reload: (reason) => plugins.reload(reason),
    stop,
    [Symbol.asyncDispose]: stop,
    async send(request, answer = { status: 200, headers: ["Content-Type", "application/json"], body: "{}" }) {
      const {
        body,
        method = body === undefined ? "GET" : "POST",
        path,
        headers = HEADERS,
        project,
      } = request;
      const upstream: SentRequest[] = [];
      const result = await plugins.send(
        { method, target: path, headers, body: bytesOf(body), project },
        (exchange) => provider.expect(exchange, { answer, upstream }),
      );
      return { ...result, upstream };
    },
  };
}

/** Provides the stand-ins for services, and the candidates, which the router would write. */
function backdrop(plugin: Plugin, services: Readonly<Record<string, unknown>>, provider: StandIn): Plugin {
  const provided = Object.entries(services).map(([name, value]): [ServiceToken<unknown>, unknown] => {
    const need = plugin.needs?.[name];
    if (need === undefined) throw new RangeError(`${plugin.name} needs no service that it calls "${name}"`);
    return ["optional" in need ? need.optional : need, value];
  });
  return definePlugin({
    name: "testkit",
    version: "1.0.0",
    apiVersion: 1,
    stage: "route",
    provides: provided.map(([token]) => token),
    setup(ctx) {
      for (const [token, value] of provided) ctx.provide(token, value);
      ctx.pipeline((_config, hooks) => {
        hooks.request.tap((exchange) => {
          const formats = ctx.host.registry.all("format").map(({ name }) => name);
          const all = provider.providers(exchange.format?.name ?? "", formats);
          exchange.candidates = all.map((each) => ({
            provider: each,
            credential: { kind: "client" },
            reason: "the test's",
          }));
        });
      });
    },
  });
}

interface Expected {
  readonly answer: Answer;
  readonly upstream: SentRequest[];
}

/** Answers for all providers, and records what they are asked. */
class StandIn {
  readonly #names: readonly string[];
  readonly #expected = new WeakMap<Exchange, Expected>();

  constructor(names: readonly string[]) {
    this.#names = names;
  }
  expect(exchange: Exchange, expected: Expected): void {
    this.#expected.set(exchange, expected);
  }
  providers(format: string, formats: readonly string[]): Provider[] {
    return this.#names.map((name) => ({
      name,
      format,
      formats,
      apiBase: undefined,
      models: [],
      priority: 0,
      timeouts: { connectMs: 0, headMs: 0, idleMs: 0 },
      auth: "client",
      answer: (request, exchange) => {
        const { answer, upstream } = this.#expected.get(exchange)!;
        const recorded: SentRequest = {
          ...request,
          provider: name,
          header: (wanted) => headerValue(request.headers, wanted),
          json: () => JSON.parse(request.body.toString("utf8")),
        };
        upstream.push(recorded);
        return typeof answer === "function" ? answer(recorded) : answer;
      },
    }));
  }
}

function bytesOf(body: unknown): Buffer {
  if (body === undefined) return Buffer.alloc(0);
  if (Buffer.isBuffer(body)) return body;
  return Buffer.from(typeof body === "string" ? body : JSON.stringify(body));
}

/** Tables joined member by member; where both have one that is no table, the right one's counts. */
function merge(left: ConfigTable, right: ConfigTable): ConfigTable {
  const joined: Record<string, ConfigTable[string]> = { ...left };
  for (const [key, value] of Object.entries(right)) {
    const old = joined[key];
    joined[key] = isTable(old) && isTable(value) ? merge(old, value) : value;
  }
  return joined;
}

function isTable(value: ConfigTable[string]): value is ConfigTable {
  return typeof value === "object" && !Array.isArray(value);
}
