import {
  type JsonNode,
  type ListedModel,
  type ModelListing,
  type ModelPage,
  parseIndex,
  textOf,
} from "@tokenman/plugin-sdk";

/** What a page has at most, and where the client does not say. Source: Anthropic's API reference, "List Models". */
const MAX_LIMIT = 1_000;
const DEFAULT_LIMIT = 20;

/** Anthropic's list of models, in pages. */
export const modelListing: ModelListing = Object.freeze({
  path: (after?: string) =>
    `/v1/models?limit=${MAX_LIMIT}${after === undefined ? "" : `&after_id=${encodeURIComponent(after)}`}`,
  // Of the two versions that are live, the one that every compatible server knows; a client's own is not touched.
  headers: ["anthropic-version", "2023-06-01"],
  read,
  list,
  one,
});

function read(body: Buffer): ModelPage | undefined {
  try {
    const root = parseIndex(body);
    const data = root.get("data");
    if (data?.kind !== "array") return undefined;
    const models = data.items().flatMap(modelIn);
    const isLast = root.get("has_more")?.kind !== "true";
    return { models, after: isLast ? undefined : (textOf(root.get("last_id")) ?? models.at(-1)?.id) };
  } catch {
    return undefined;
  }
}

function modelIn(node: JsonNode): ListedModel[] {
  const id = textOf(node.get("id"));
  if (id === undefined || id === "") return [];
  const createdAt = Date.parse(textOf(node.get("created_at")) ?? "");
  const displayName = textOf(node.get("display_name"));
  return [
    {
      id,
      ...(createdAt > 0 && { createdAt }),
      ...(displayName !== undefined && { displayName }),
      entry: { format: "anthropic", json: node.raw() },
    },
  ];
}

/** The page after `after_id`, or the one that ends before `before_id`; an id that is not in the list has neither. */
function list(models: readonly ListedModel[], query: URLSearchParams): string {
  const asked = Number(query.get("limit") || DEFAULT_LIMIT);
  const limit = Number.isInteger(asked) && asked > 0 ? Math.min(asked, MAX_LIMIT) : DEFAULT_LIMIT;
  const place = (id: string) => models.findIndex((model) => model.id === id);
  const after = query.get("after_id");
  const before = query.get("before_id");
  let from = 0;
  let to = models.length;
  if (after !== null) {
    const at = place(after);
    from = at < 0 ? models.length : at + 1;
    to = Math.min(models.length, from + limit);
  } else if (before !== null) {
    to = Math.max(0, place(before));
    from = Math.max(0, to - limit);
  } else to = Math.min(models.length, limit);
  const page = models.slice(from, to);
  const hasMore = before !== null && after === null ? from > 0 : to < models.length;
  const first = JSON.stringify(page[0]?.id ?? null);
  const last = JSON.stringify(page.at(-1)?.id ?? null);
  return `{"data":[${page.map(one).join(",")}],"has_more":${hasMore},"first_id":${first},"last_id":${last}}`;
}

function one({ id, createdAt = 0, displayName = id, entry }: ListedModel): string {
  if (entry?.format === "anthropic") return entry.json;
  const created = new Date(createdAt).toISOString().replace(".000Z", "Z");
  return JSON.stringify({ type: "model", id, display_name: displayName, created_at: created });
}
