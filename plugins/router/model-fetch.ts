import crypto from "node:crypto";
import {
  type Candidate,
  type ClientCredential,
  type ClientRequest,
  type Format,
  type HostInfo,
  type ListedModel,
  type Logger,
  type RawHeaders,
  withHeader,
  withoutHeaders,
} from "@tokenman/plugin-sdk";
import type { Fetched } from "./catalogue.ts";

/** What asking a provider for its models takes. */
export interface Asking {
  readonly host: Pick<HostInfo, "ask" | "version">;
  readonly log: Logger;
  readonly format: Format;
  readonly candidate: Candidate;
  /** The client whose credential goes out where it is the candidate's. */
  readonly request: ClientRequest;
}

/** Longer than any client waits: what comes late is there for the next one. */
const TIMEOUT_MS = 15_000;
/** Of all pages together. */
const MAX_BYTES = 8 * 1024 * 1024;
/** A list that has more pages than this does not end. */
const MAX_PAGES = 20;
/** Of the client's headers, those that are about the list that it asked for. */
const ABOUT_THE_REQUEST: ReadonlySet<string> = new Set([
  "if-none-match",
  "if-modified-since",
  "if-match",
  "if-unmodified-since",
  "if-range",
  "range",
  "accept-encoding",
  "content-type",
  "content-encoding",
]);

/** Tells apart whose list it is: a provider may show each account other models. */
export function listKey({ provider, credential }: Candidate, client: ClientCredential | undefined): string {
  const secret =
    credential.kind === "client"
      ? client?.secret
      : credential.kind === "key"
        ? credential.secret.reveal()
        : undefined;
  const account = secret === undefined ? "" : crypto.hash("sha256", secret, "base64url");
  return `${provider.name}\n${provider.apiBase ?? ""}\n${account}`;
}

/** A provider's whole list, page by page. Never rejects. */
export async function fetchModels(asking: Asking): Promise<Fetched> {
  const { host, log, format, candidate } = asking;
  const { provider } = candidate;
  const listing = format.models!;
  const models: ListedModel[] = [];
  try {
    let after: string | undefined;
    let left = MAX_BYTES;
    for (let page = 0; page < MAX_PAGES; page++) {
      const answer = await host.ask(provider, {
        method: "GET",
        path: listing.path(after),
        headers: headersFor(asking),
        timeoutMs: TIMEOUT_MS,
        maxBytes: left,
      });
      const read = answer.status === 200 ? listing.read(answer.body) : undefined;
      if (read === undefined) {
        log.info({ provider: provider.name, status: answer.status }, "a provider did not list its models");
        return { refusal: answer };
      }
      models.push(...read.models);
      left -= answer.body.length;
      // A server that does not know the cursor would give the first page for ever.
      if (read.after === undefined || read.after === after || read.models.length === 0) break;
      after = read.after;
    }
    return { models };
  } catch (cause) {
    log.info({ provider: provider.name, err: cause }, "a provider's models could not be listed");
    return { refusal: undefined };
  }
}

function headersFor({ host, format, candidate, request }: Asking): RawHeaders {
  const { credential } = candidate;
  if (credential.kind === "client") {
    const own = withoutHeaders(request.headers, ABOUT_THE_REQUEST);
    const missing = format.models!.headers;
    let headers = withHeader(own, "Accept-Encoding", "identity");
    for (let index = 0; index + 1 < missing.length; index += 2) {
      if (request.header(missing[index]!) === undefined)
        headers = [...headers, missing[index]!, missing[index + 1]!];
    }
    return headers;
  }
  const key = credential.kind === "key" ? format.authorize(credential.secret.reveal()) : [];
  return [
    "Accept",
    "application/json",
    "Accept-Encoding",
    "identity",
    "User-Agent",
    `tokenman/${host.version}`,
    ...format.models!.headers,
    ...key,
  ];
}
