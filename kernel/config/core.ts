import { isIP } from "node:net";
import { z } from "@tokenman/plugin-sdk";
import { KERNEL, type SectionSpec } from "./section.ts";

/** Node's timers hold no more than 2^31 - 1 milliseconds. */
const MAX_SECONDS = 2_000_000;

function seconds(fallback: number, description: string) {
  return z.number().min(0).max(MAX_SECONDS).default(fallback).describe(description);
}

function bytes(fallback: number, description: string) {
  return z.int().min(0).default(fallback).describe(description);
}

function port(fallback: number, description: string) {
  return z.int().min(0).max(65535).default(fallback).describe(description);
}

const HOST_NAME = /^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9-]{1,63}){0,20}$/;

/** An address as `net.Server.listen` takes it: an IPv6 address loses its brackets. */
const bindAddress = z
  .string()
  .refine((text) => isIP(withoutBrackets(text)) !== 0 || (HOST_NAME.test(text) && !/^[\d.]+$/.test(text)), {
    error: "expected an IP address or a host name, without a port",
  })
  .transform(withoutBrackets)
  .prefault("127.0.0.1")
  .describe("Where both ports listen. Anything but a loopback address needs [auth] or allow_open_bind.");

function withoutBrackets(text: string): string {
  return text.startsWith("[") && text.endsWith("]") ? text.slice(1, -1) : text;
}

export const serverSchema = z
  .strictObject({
    bind_address: bindAddress,
    allow_open_bind: z
      .boolean()
      .default(false)
      .describe(
        "Listen on a non-loopback address without [auth]: everybody who reaches it can spend your money.",
      ),
    allowed_hosts: z
      .array(z.string().min(1))
      .default([])
      .describe("Host names served beside localhost and the bound address: tunnels, names in /etc/hosts."),
    proxy_port: port(7677, "The port that clients talk to. 0 takes any free one."),
    dashboard_port: port(
      7678,
      "The port of the dashboard, the JSON API and the metrics. 0 takes any free one.",
    ),
    log_level: z
      .enum(["trace", "debug", "info", "warn", "error", "fatal", "silent"])
      .default("info")
      .describe("What is logged."),
    data_dir: z
      .string()
      .min(1)
      .default("~/.tokenman")
      .meta({ path: true })
      .describe("Where the database, the PID file and the caches live. Created with mode 0700."),
    tls_enabled: z
      .boolean()
      .default(false)
      .describe("Serve HTTPS on both ports; needs cert_file and key_file."),
    cert_file: z.string().default("").meta({ path: true }).describe("The certificate chain, PEM."),
    key_file: z.string().default("").meta({ path: true }).describe("The certificate's private key, PEM."),
    read_timeout: seconds(
      10,
      "Seconds in which a request's headers must be complete, and for which its body may stall. 0 is no limit.",
    ),
    write_timeout: seconds(300, "Seconds for which a client may stop reading its reply. 0 is no limit."),
    idle_timeout: seconds(120, "Seconds for which an unused connection is kept. 0 is no limit."),
    stream_timeout: seconds(
      600,
      "Seconds for which a provider's stream may be silent between bytes. 0 is no limit.",
    ),
    max_connections: z
      .int()
      .min(0)
      .default(0)
      .describe(
        "Client connections on the proxy port. 0 is as many as the process's file descriptors allow.",
      ),
    max_body_size: bytes(
      33_554_432,
      "Bytes of a request body on inspected paths; an opaque passthrough streams. 0 is no limit.",
    ),
    max_response_size: bytes(
      104_857_600,
      "Bytes of a reply that are kept for inspection; the client gets all of it. 0 is no limit.",
    ),
    max_log_body: bytes(
      0,
      "Bytes of each body that the debug log shows and the database keeps. With store_body, 0 is 1 MiB, and that is the most.",
    ),
    max_stream_sessions: z
      .int()
      .min(0)
      .default(100)
      .describe("Two-way stream sessions open at once; 0 is none."),
    session_ttl: seconds(3600, "Seconds after which an unused stream session is closed; 0 is never."),
    store_body: z.boolean().default(false).describe("Keep request and response bodies in the database."),
  })
  .describe("Listening sockets, limits and time-outs.");

export const authSchema = z
  .strictObject({
    enabled: z
      .boolean()
      .default(false)
      .describe("Demand the token on the dashboard port, and on the proxy port as `proxy` says."),
    token: z
      .string()
      .regex(/^[\x21-\x7e]*$/, "expected visible ASCII characters without spaces")
      .default("")
      .meta({ secret: true })
      .describe("The token. Better given as TOKENMAN_AUTH_TOKEN."),
    proxy: z
      .boolean()
      .optional()
      .describe(
        "Demand it on the proxy port too. Not set: only where the bind address is not a loopback address.",
      ),
  })
  .describe("Who may use TokenMan.");

export const pluginsSchema = z
  .strictObject({
    order: z
      .array(z.string().min(1))
      .optional()
      .describe(
        "The plugins to load, in this order (names or paths). The reply passes them in reverse. Not set: the built-in order.",
      ),
    dir: z
      .string()
      .min(1)
      .default("~/.tokenman/plugins")
      .meta({ path: true })
      .describe("Plugins put into this folder are loaded."),
    configs: z
      .record(z.string(), z.looseObject({}))
      .default({})
      .describe("Settings of third-party plugins: one table [plugins.configs.NAME] each."),
  })
  .describe("Which plugins are loaded.");

/** Times in seconds, sizes in bytes, paths absolute. */
export type ServerConfig = Readonly<z.output<typeof serverSchema>>;
export interface AuthConfig {
  readonly enabled: boolean;
  readonly token: string;
  /** Whether the proxy port demands the token as well. */
  readonly proxy: boolean;
}
export interface PluginsConfig {
  /** Undefined: the built-in order. */
  readonly order: readonly string[] | undefined;
  /** Absolute. */
  readonly dir: string;
  /** As written, before any plugin's schema. */
  readonly configs: Readonly<Record<string, unknown>>;
}

/** The sections that belong to the kernel. */
export const coreSections: readonly SectionSpec[] = (
  [
    ["server", serverSchema],
    ["auth", authSchema],
    ["plugins", pluginsSchema],
  ] as const
).map(([path, schema]) => ({ path, schema, owner: KERNEL, perProject: false, loaded: true }));

/** Whether only this machine can reach the address. */
export function isLoopback(address: string): boolean {
  const plain = address.toLowerCase().replace(/^::ffff:(?=\d)/, "");
  return plain === "localhost" || plain === "::1" || (isIP(plain) === 4 && plain.startsWith("127."));
}
