import type { ListedModel } from "@tokenman/plugin-sdk";
import { MODELS } from "./behaviour.ts";
import type { Json } from "./json.ts";
import { RequestError } from "./request-error.ts";

const BIRTH = "2026-01-01T00:00:00Z";

/** The models that have a name of their own, for lists of what all providers have. */
export function listedModels(): readonly ListedModel[] {
  return MODELS.map((id) => ({
    id,
    createdAt: Date.parse(BIRTH),
    ownedBy: "tokenman",
    entry: { format: "anthropic", json: JSON.stringify(anthropicModel(id)) },
  }));
}

/** The model list, or one model where the path goes on, in the vendor's shape. */
export function models(vendor: "anthropic" | "openai", path: string): Json {
  const id = modelIn(path);
  const describe = vendor === "anthropic" ? anthropicModel : openaiModel;
  if (id !== undefined) {
    if (id !== "mock" && !id.startsWith("mock-"))
      throw new RequestError(`there is no model ${id}`, { status: 404, code: "model_not_found" });
    return describe(id);
  }
  const data = MODELS.map(describe);
  return vendor === "anthropic"
    ? { data, has_more: false, first_id: MODELS[0], last_id: MODELS.at(-1) }
    : { object: "list", data };
}

function modelIn(path: string): string | undefined {
  const name = /\/models\/([^/?#]+)/.exec(path)?.[1];
  try {
    return name === undefined ? undefined : decodeURIComponent(name);
  } catch {
    return name;
  }
}

function anthropicModel(id: string): Json {
  return {
    type: "model",
    id,
    display_name: id,
    created_at: BIRTH,
    max_input_tokens: 200_000,
    max_tokens: 64_000,
    lifecycle: "active",
    capabilities: null,
    line: null,
    deprecated_at: null,
    retires_at: null,
  };
}

function openaiModel(id: string): Json {
  return { id, object: "model", created: Date.parse(BIRTH) / 1_000, owned_by: "tokenman" };
}
