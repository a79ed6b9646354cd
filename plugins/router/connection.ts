import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import {
  type Logger,
  type ProviderConnection,
  Secret,
  TokenmanError,
  TokenmanErrors,
  z,
} from "@tokenman/plugin-sdk";

/** Node's timers hold no more than 2^31 - 1 milliseconds. */
const MAX_SECONDS = 2_000_000;
const SECRET_REF = /^(?:env:[A-Za-z_][A-Za-z0-9_]*|file:\/\/\/.+)$/;
const PROXY =
  /^(?:none|(?:https?|socks5h?):\/\/(?:[^\s/]*@)?(?:[^\s/:@]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?\/?)$/;
const HOST_NAME = /^(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_-]{1,63}){0,20}$/;

function file(description: string) {
  return z.string().default("").meta({ path: true }).describe(description);
}

function seconds() {
  return z.number().min(0).max(MAX_SECONDS);
}

/** The keys of `[providers.NAME]` that say how its connections are made and kept. */
export const connectionKeys = {
  idle_timeout: seconds()
    .optional()
    .describe("Seconds between two bytes of the reply; 0: no limit. Not set: server.stream_timeout."),
  total_timeout: seconds()
    .default(0)
    .describe("Seconds for one attempt in all, to the reply's last byte; 0: no limit."),
  max_connections: z
    .int()
    .min(0)
    .max(65_535)
    .default(0)
    .describe("Connections at once; a request beyond them waits, `timeout` at the most. 0: no limit."),
  keep_alive_timeout: seconds()
    .default(60)
    .describe("Seconds for which an unused connection is kept; 0: not at all."),
  max_connection_age: seconds()
    .default(600)
    .describe(
      "Seconds after which a connection takes no further request, so that a DNS change is followed; 0: no limit.",
    ),
  proxy: z
    .string()
    .refine((value) => value === "" || PROXY.test(value), {
      error: 'expected "none" or a proxy\'s URL: http://, https://, socks5:// or socks5h://, host and port',
    })
    .default("")
    .meta({ secret: true })
    .describe(
      'The proxy\'s URL, with user and password where it wants them, or "none". Empty: HTTPS_PROXY and its like.',
    ),
  ca_file: file("Certificates (PEM) that are trusted beside the usual ones and NODE_EXTRA_CA_CERTS."),
  client_cert_file: file("The certificate chain (PEM) that is shown to the server; needs client_key_file."),
  client_key_file: file("The private key (PEM) of client_cert_file."),
  client_key_passphrase_ref: z
    .string()
    .refine((value) => value === "" || SECRET_REF.test(value), {
      error: "expected env:NAME or file:///PATH: a reference to the passphrase, not the passphrase itself",
    })
    .default("")
    .meta({ secret: true })
    .describe("Where the passphrase of client_key_file is: env:NAME, file:///PATH. Empty: it has none."),
  tls_server_name: z
    .string()
    .refine((value) => value === "" || HOST_NAME.test(value), { error: "expected a host name" })
    .default("")
    .describe("The name that the server's certificate must have. Empty: the host of api_base."),
} as const;

const schema = z.object(connectionKeys);
export type ConnectionConfig = z.output<typeof schema>;

type Named = ConnectionConfig & { readonly enabled: boolean; readonly api_base: string | undefined };

/**
 * What the kernel needs to connect to each provider that is enabled. Reads the files that are named: throws
 * TokenmanErrors with one TM_CONFIG_INVALID, which names its key, for each that cannot be used.
 */
export async function connectionsOf(
  providers: Readonly<Record<string, Named>>,
  log: Logger,
): Promise<ReadonlyMap<string, ProviderConnection>> {
  const connections = new Map<string, ProviderConnection>();
  const faults: TokenmanError[] = [];
  for (const [name, config] of Object.entries(providers)) {
    if (!config.enabled) continue;
    const reader = new FileReader(name, log);
    connections.set(name, await connectionOf(config, reader));
    faults.push(...reader.faults);
  }
  if (faults.length > 0) throw new TokenmanErrors(faults);
  return connections;
}

async function connectionOf(config: Named, reader: FileReader): Promise<ProviderConnection> {
  const { ca_file, client_cert_file, client_key_file, client_key_passphrase_ref, tls_server_name } = config;
  if (config.api_base?.startsWith("http:") === true) {
    for (const key of ["ca_file", "client_cert_file", "client_key_file", "tls_server_name"] as const)
      if (config[key] !== "") reader.fault(key, "expected an api_base with https://, as it is for TLS only");
  }
  const ca = ca_file === "" ? undefined : await reader.certificates("ca_file", ca_file);
  const cert =
    client_cert_file === "" ? undefined : await reader.certificates("client_cert_file", client_cert_file);
  if (client_cert_file !== "" && client_key_file === "")
    reader.fault("client_cert_file", "expected client_key_file beside it, found none");
  if (client_key_file !== "" && client_cert_file === "")
    reader.fault("client_key_file", "expected client_cert_file beside it, found none");
  if (client_key_passphrase_ref !== "" && client_key_file === "")
    reader.fault("client_key_passphrase_ref", "expected client_key_file beside it, found none");
  const passphrase =
    client_key_passphrase_ref === "" || client_key_file === ""
      ? undefined
      : await reader.passphrase("client_key_passphrase_ref", client_key_passphrase_ref);
  const key =
    client_key_file === "" || cert === undefined || reader.faults.length > 0
      ? undefined
      : await reader.privateKey("client_key_file", client_key_file, cert, passphrase);
  return Object.freeze({
    maxConnections: config.max_connections,
    keepAliveMs: config.keep_alive_timeout * 1000,
    maxAgeMs: config.max_connection_age * 1000,
    proxy: config.proxy === "" ? undefined : config.proxy === "none" ? "none" : new Secret(config.proxy),
    ca,
    clientCertificate: cert === undefined || key === undefined ? undefined : { cert, key, passphrase },
    serverName: tls_server_name === "" ? undefined : tls_server_name,
  });
}

type Key = keyof ConnectionConfig;

/** Reads what the config names, and collects what is wrong with it. */
class FileReader {
  readonly faults: TokenmanError[] = [];
  readonly #provider: string;
  readonly #log: Logger;

  constructor(provider: string, log: Logger) {
    this.#provider = provider;
    this.#log = log;
  }

  fault(key: Key, message: string, cause?: unknown): undefined {
    const configPath = ["providers", this.#provider, key];
    this.faults.push(
      new TokenmanError("TM_CONFIG_INVALID", `${configPath.join(".")}: ${message}`, { cause, configPath }),
    );
  }
  /** One certificate or more, as they stand in the file. */
  async certificates(key: Key, path: string): Promise<string | undefined> {
    const text = await this.#read(key, path);
    if (text === undefined) return undefined;
    const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
    if (blocks.length === 0)
      return this.fault(key, `expected certificates in PEM, found none in ${JSON.stringify(path)}`);
    for (const [index, block] of blocks.entries()) {
      try {
        new X509Certificate(block);
      } catch (cause) {
        return this.fault(
          key,
          `expected certificates in PEM; number ${index + 1} of ${JSON.stringify(path)} is broken`,
          cause,
        );
      }
    }
    return text;
  }
  async privateKey(
    key: Key,
    path: string,
    cert: string,
    passphrase: Secret | undefined,
  ): Promise<Secret | undefined> {
    const text = await this.#read(key, path);
    if (text === undefined) return undefined;
    const mode = await stat(path).then((found) => found.mode);
    if ((mode & 0o004) !== 0)
      this.#log.warn(
        { provider: this.#provider, path },
        "every user of this machine can read the key: chmod 600",
      );
    const where = JSON.stringify(path);
    try {
      const made = createPrivateKey(
        passphrase === undefined ? text : { key: text, passphrase: passphrase.reveal() },
      );
      if (new X509Certificate(cert).checkPrivateKey(made)) return new Secret(text);
    } catch (cause) {
      const encrypted = /ENCRYPTED/.test(text);
      const why = !encrypted
        ? "is none"
        : passphrase === undefined
          ? "is encrypted, and client_key_passphrase_ref is not set"
          : "does not open with the passphrase";
      return this.fault(key, `expected a private key in PEM; ${where} ${why}`, cause);
    }
    return this.fault(key, `expected the private key of client_cert_file; ${where} is another one`);
  }
  async passphrase(key: Key, reference: string): Promise<Secret | undefined> {
    if (reference.startsWith("env:")) {
      const value = process.env[reference.slice(4)];
      return value ? new Secret(value) : this.fault(key, `the variable ${reference.slice(4)} is not set`);
    }
    const text = await this.#read(key, fileURLToPath(reference));
    return text === undefined ? undefined : new Secret(text.replace(/\r?\n$/, ""));
  }

  async #read(key: Key, path: string): Promise<string | undefined> {
    try {
      return await readFile(path, "utf8");
    } catch (cause) {
      const why = (cause as NodeJS.ErrnoException).code ?? String(cause);
      return this.fault(
        key,
        `expected a file that can be read, found ${why} at ${JSON.stringify(path)}`,
        cause,
      );
    }
  }
}
