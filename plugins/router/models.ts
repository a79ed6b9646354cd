import {
  type Candidate,
  type Exchange,
  type Format,
  type HostInfo,
  type ListedModel,
  type Logger,
  matchesGlob,
  parseIndex,
  type ReplyInit,
  speaks,
  spliceJson,
} from "@tokenman/plugin-sdk";
import type { Catalogue } from "./catalogue.ts";
import { admit, type Client } from "./credentials.ts";
import { fetchModels, listKey } from "./model-fetch.ts";
import { modelInPath } from "./model-path.ts";
import type { RouteTable } from "./route-table.ts";

/** What lists of models are made from. */
export interface ModelsParts {
  readonly host: Pick<HostInfo, "ask" | "version" | "registry">;
  readonly log: Logger;
  readonly catalogue: Catalogue;
  readonly ttlMs: number;
  readonly waitMs: number;
  /** Whether models are listed that the client's format does not reach. */
  readonly allFormats: boolean;
}

const REFUSED: ReadonlySet<number> = new Set([401, 403]);

/**
 * `GET /v1/models` and `/v1/models/ID`: what all providers have that the client's format reaches, in the client's shape.
 * Each provider is asked under the rule for credentials that holds for every other request. One that is slow or down is
 * there with its last list, or not at all.
 */
export class Models {
  readonly #parts: ModelsParts;

  constructor(parts: ModelsParts) {
    this.#parts = parts;
  }

  /** Undefined where the request had better go to a provider as it is. */
  async answer(exchange: Exchange, table: RouteTable): Promise<ReplyInit | undefined> {
    const { request } = exchange;
    const formats = this.#parts.host.registry.all("format");
    // Both vendors have this path. A key that is plainly the other one's is answered as that one would, and goes to it.
    const format = exchange.format?.claims(request.headers)
      ? exchange.format
      : (formats.find((each) => each.claims(request.headers)) ?? exchange.format);
    const listing = format?.models;
    if (format === undefined || listing === undefined) return undefined;
    const isForeign = formats.some((each) => each !== format && each.claims(request.headers));
    const credential = isForeign ? undefined : format.credential(request.headers);
    const client: Client = {
      request,
      credential,
      subscription: format.isSubscription(request.headers),
    };
    const { models, refusal } = await this.#all(exchange, format, client, table);
    const id = modelInPath(exchange);
    if (id !== undefined) {
      const model = models.find((each) => each.id === id);
      if (model !== undefined) return json(listing.one(model));
      // A provider may know what it does not list. Without a credential there is nobody to be asked.
      if (client.credential !== undefined || table.plan(format.name, id).choices[0]?.provider.auth === "none")
        return undefined;
      return exchange.refuse({
        code: "TM_NOT_FOUND",
        message: `there is no model ${JSON.stringify(id.slice(0, 100))}`,
      });
    }
    if (refusal !== undefined) return refusal;
    const query = exchange.request.target.split("?", 2)[1] ?? "";
    return json(listing.list(models, new URLSearchParams(query)));
  }

  async #all(
    exchange: Exchange,
    format: Format,
    client: Client,
    table: RouteTable,
  ): Promise<{ readonly models: readonly ListedModel[]; readonly refusal: ReplyInit | undefined }> {
    const { host, catalogue } = this.#parts;
    const formats = host.registry.all("format");
    const others = this.#parts.allFormats ? formats.filter((each) => each !== format) : [];
    const lists = await Promise.all(
      // The client's credential is its own format's: another format's providers have their keys, or are left out.
      [format, ...others].map((each) =>
        this.#asked(each, each === format ? client : { ...client, credential: undefined }, table),
      ),
    );
    const asked = lists.flat();
    const waiting = asked.flatMap(({ key, format: each, candidate }) => {
      const fetch = () =>
        fetchModels({ host, log: this.#parts.log, format: each, candidate, request: exchange.request });
      return catalogue.refresh(key, this.#parts.ttlMs, fetch) ?? [];
    });
    if (waiting.length > 0) await exchange.wait(within(this.#parts.waitMs, waiting));
    const found = new Map<string, ListedModel>();
    const add = (model: ListedModel) => {
      if (!found.has(model.id)) found.set(model.id, model);
    };
    let refusal: ReplyInit | undefined;
    for (const { key, candidate } of asked) {
      const known = catalogue.known(key);
      for (const model of served(candidate, known.models ?? [], table)) add(model);
      const { refusal: refused } = known;
      if (candidate.credential.kind === "client" && refused !== undefined && REFUSED.has(refused.status))
        refusal = { status: refused.status, headers: refused.headers, body: refused.body };
    }
    // The client's own provider does not know its key, and nobody else has anything: that is what it must hear.
    if (found.size === 0 && refusal !== undefined) return { models: [], refusal };
    const usable = new Set(asked.map(({ candidate }) => candidate.provider));
    for (const { name, model, providers } of table.aliases(format.name)) {
      if (providers.some((each) => usable.has(each) || each.answer !== undefined))
        add(aliasOf(name, found.get(model)));
    }
    for (const provider of host.registry.all("provider")) {
      if (this.#parts.allFormats || speaks(provider, format.name)) provider.listModels?.().forEach(add);
    }
    return { models: [...found.values()], refusal: undefined };
  }

  /** Whom to ask, and with which credential: one candidate for each provider that has any. */
  async #asked(format: Format, client: Client, table: RouteTable): Promise<readonly Asked[]> {
    if (format.models === undefined) return [];
    const { candidates } = await admit(table.plan(format.name, undefined), client);
    const providers = new Set<string>();
    return candidates.flatMap((candidate) => {
      const { provider, credential } = candidate;
      const isBare = credential.kind === "none" && provider.auth !== "none";
      if (provider.answer !== undefined || isBare || providers.has(provider.name)) return [];
      providers.add(provider.name);
      return [{ key: listKey(candidate, client.credential), format, candidate }];
    });
  }
}

interface Asked {
  readonly key: string;
  readonly format: Format;
  readonly candidate: Candidate;
}

/** Of the models that a provider lists, those that requests come to it for; and those that its config names. */
function served(
  { provider }: Candidate,
  models: readonly ListedModel[],
  table: RouteTable,
): readonly ListedModel[] {
  if (provider.models.length === 0) return models;
  const isServed = ({ id }: ListedModel) => provider.models.some((pattern) => matchesGlob(pattern, id));
  const listed = table.takesAny(provider) ? models : models.filter(isServed);
  const named = provider.models.filter((pattern) => !pattern.includes("*"));
  return [...listed, ...named.map((id) => ({ id, ownedBy: provider.name }))];
}

/** An alias has what is known of the model that it stands for. */
function aliasOf(name: string, model: ListedModel | undefined): ListedModel {
  if (model?.entry === undefined) return { ...model, id: name };
  const { format, json: entry } = model.entry;
  try {
    const bytes = Buffer.from(entry);
    const renamed = spliceJson(bytes, parseIndex(bytes), [
      { kind: "patch", op: "replace", pointer: "/id", value: name },
    ]);
    return { ...model, id: name, entry: { format, json: renamed.toString() } };
  } catch {
    const { entry: _, ...rest } = model;
    return { ...rest, id: name };
  }
}

function json(body: string): ReplyInit {
  return { status: 200, headers: ["Content-Type", "application/json"], body };
}

/** Until all are done, or the time is over. */
async function within(ms: number, waiting: readonly Promise<void>[]): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([Promise.all(waiting), late]);
  clearTimeout(timer);
}
