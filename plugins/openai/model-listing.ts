import {
  type JsonNode,
  type ListedModel,
  type ModelListing,
  type ModelPage,
  parseIndex,
  textOf,
} from "@tokenman/plugin-sdk";

/** OpenAI's list of models, as nearly all servers that copied its API have it: one page with everything. */
export const modelListing: ModelListing = Object.freeze({
  path: () => "/v1/models",
  headers: [],
  read,
  list: (models: readonly ListedModel[]) => `{"object":"list","data":[${models.map(one).join(",")}]}`,
  one,
});

function read(body: Buffer): ModelPage | undefined {
  try {
    const data = parseIndex(body).get("data");
    if (data?.kind !== "array") return undefined;
    return { models: data.items().flatMap(modelIn), after: undefined };
  } catch {
    return undefined;
  }
}

function modelIn(node: JsonNode): ListedModel[] {
  const id = textOf(node.get("id"));
  if (id === undefined || id === "") return [];
  const created = Number(node.get("created")?.raw());
  const ownedBy = textOf(node.get("owned_by"));
  const entry = { format: "openai", json: node.raw() };
  return [
    {
      id,
      ...(created > 0 && { createdAt: created * 1_000 }),
      ...(ownedBy !== undefined && { ownedBy }),
      entry,
    },
  ];
}

function one({ id, createdAt = 0, ownedBy = "tokenman", entry }: ListedModel): string {
  if (entry?.format === "openai") return entry.json;
  return JSON.stringify({ id, object: "model", created: Math.floor(createdAt / 1_000), owned_by: ownedBy });
}
