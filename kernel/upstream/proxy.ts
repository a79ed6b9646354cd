import { BlockList, isIP } from "node:net";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { Destination } from "./connector.ts";

/** A proxy on the way to a provider. */
export interface UpstreamProxy {
  readonly kind: "http" | "socks";
  /** As undici's connectors take it. */
  readonly address: Destination;
  /** Plain HTTP is not tunnelled but asked for by whole URLs, the way in which every HTTP proxy knows it. */
  readonly forwards: boolean;
  readonly user: string;
  readonly password: string;
}

const SCHEMES = /^(https?|socks5h?):$/;
const PORTS: Readonly<Record<string, string>> = { "http:": "80", "https:": "443" };

/**
 * The proxy of a URL; without a scheme it is an HTTP proxy. `where` names the setting. Throws TM_CONFIG_INVALID with
 * nothing of the URL in it, which may hold a password.
 */
export function parseProxy(text: string, where: string): UpstreamProxy {
  const url = URL.parse(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`);
  if (url === null || !SCHEMES.test(url.protocol) || url.hostname === "" || !/^\/?$/.test(url.pathname)) {
    const message = `${where}: expected a proxy's URL (http://, https://, socks5:// or socks5h://, host, port), found other text`;
    throw new TokenmanError("TM_CONFIG_INVALID", message, { place: { file: where } });
  }
  const { hostname, protocol } = url;
  const isSocks = protocol.startsWith("socks");
  const port = url.port || (isSocks ? "1080" : PORTS[protocol]!);
  return {
    kind: isSocks ? "socks" : "http",
    address: {
      hostname: hostname.replace(/^\[|\]$/g, ""),
      host: `${hostname}:${port}`,
      protocol: isSocks ? "http:" : protocol,
      port,
    },
    forwards: !isSocks,
    user: decoded(url.username),
    password: decoded(url.password),
  };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The value of Proxy-Authorization; undefined where the proxy wants none. */
export function proxyAuthorization({ user, password }: UpstreamProxy): string | undefined {
  if (user === "" && password === "") return undefined;
  return `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The proxies that the environment names: HTTPS_PROXY for https, HTTP_PROXY for http, ALL_PROXY for both, NO_PROXY for
 * what is reached directly. The lower-case names go first, as in curl. Loopback addresses are never proxied.
 */
export class ProxyEnvironment {
  readonly #byProtocol = new Map<string, UpstreamProxy>();
  readonly #direct: readonly DirectRule[];

  /** Throws TM_CONFIG_INVALID for a variable that names no proxy that can be used. */
  constructor(env: Environment) {
    for (const [protocol, name] of [
      ["https:", "HTTPS_PROXY"],
      ["http:", "HTTP_PROXY"],
    ] as const) {
      const variable = [name.toLowerCase(), name, "all_proxy", "ALL_PROXY"].find((each) => env[each]?.trim());
      if (variable !== undefined) this.#byProtocol.set(protocol, parseProxy(env[variable]!.trim(), variable));
    }
    this.#direct = (env["no_proxy"] || env["NO_PROXY"] || "")
      .split(/[\s,]+/)
      .filter((rule) => rule !== "")
      .map(directRule);
  }
  proxyFor(origin: URL): UpstreamProxy | undefined {
    const proxy = this.#byProtocol.get(origin.protocol);
    if (proxy === undefined) return undefined;
    const host = origin.hostname
      .replace(/^\[|\]$/g, "")
      .replace(/\.$/, "")
      .toLowerCase();
    const port = origin.port || PORTS[origin.protocol]!;
    return isLocal(host) || this.#direct.some((rule) => rule(host, port)) ? undefined : proxy;
  }
}

/** Whether a host is to be reached directly. */
type DirectRule = (host: string, port: string) => boolean;

/** `*`; a domain, with what is below it; `*.domain`, only what is below; an address or a range; any of them with a port. */
function directRule(text: string): DirectRule {
  const rule = text.toLowerCase();
  if (rule === "*") return () => true;
  const { name, port } = nameAndPort(rule);
  const here = (itsPort: string): boolean => port === undefined || port === itsPort;
  const range = rangeOf(name);
  if (range !== undefined) {
    return (host, itsPort) => here(itsPort) && isIP(host) !== 0 && range.check(host, family(host));
  }
  const below = `.${name.replace(/^\*?\./, "")}`;
  const itself = name.startsWith("*.") ? undefined : below.slice(1);
  return (host, itsPort) => here(itsPort) && (host === itself || host.endsWith(below));
}

/** A bare IPv6 address has colons of its own, so its port needs brackets around the address. */
function nameAndPort(rule: string): { readonly name: string; readonly port: string | undefined } {
  const [, bracketed, plain, port] = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?$/.exec(rule) ?? [];
  return { name: (bracketed ?? plain ?? rule).replace(/\.$/, ""), port };
}

function rangeOf(text: string): BlockList | undefined {
  const [address = "", bits] = text.split("/");
  if (isIP(address) === 0) return undefined;
  const range = new BlockList();
  try {
    if (bits === undefined) range.addAddress(address, family(address));
    else range.addSubnet(address, Number(bits), family(address));
  } catch {
    return undefined;
  }
  return range;
}

function family(address: string): "ipv4" | "ipv6" {
  return isIP(address) === 6 ? "ipv6" : "ipv4";
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

function isLocal(host: string): boolean {
  if (host === "localhost" || host.endsWith(".localhost")) return true;
  return isIP(host) !== 0 && LOOPBACK.check(host, family(host));
}
