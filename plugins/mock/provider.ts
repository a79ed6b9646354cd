import { brotliDecompressSync, gunzipSync, inflateSync, zstdDecompressSync } from "node:zlib";
import {
  type Attempt,
  type Exchange,
  headerValue,
  type Provider,
  type ReplyInit,
  type UpstreamRequest,
} from "@tokenman/plugin-sdk";
import { answerTo, answerTokens } from "./answer.ts";
import { planAnthropic } from "./anthropic-cache.ts";
import { checkAnthropic } from "./anthropic-check.ts";
import { readAnthropic } from "./anthropic-prompt.ts";
import { anthropicWording } from "./anthropic-reply.ts";
import { type Behaviour, behaviourOf } from "./behaviour.ts";
import { Bodies } from "./bodies.ts";
import { chatWording } from "./chat-reply.ts";
import { embed } from "./embeddings.ts";
import { idFor } from "./identity.ts";
import { type Json, objectOf, textIn } from "./json.ts";
import { listedModels, models } from "./models.ts";
import { planOpenAi } from "./openai-cache.ts";
import { checkOpenAi } from "./openai-check.ts";
import { readOpenAi } from "./openai-prompt.ts";
import { type Prompt, promptTokens } from "./prompt.ts";
import { type CachePlan, type PromptCache, uncached } from "./prompt-cache.ts";
import type { Direction, Directions, ReplyFacts, Wording } from "./reply.ts";
import { RequestError } from "./request-error.ts";
import { responsesWording } from "./responses-reply.ts";
import type { MockConfig } from "./schema.ts";
import { halves, hanging, paced, type Sleep } from "./stream.ts";
import { overloadedEvent, type Vendor, vendorError } from "./vendor-error.ts";

export interface MockParts {
  readonly config: MockConfig;
  readonly cache: PromptCache;
  readonly directions?: Directions | undefined;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  readonly sleep: Sleep;
}

/** A request as the embedded provider sees it. */
interface Call {
  readonly dialect: string;
  readonly vendor: Vendor;
  readonly path: string;
  readonly body: Buffer;
  readonly requestId: string;
  /** Keeps the prompt caches of different accounts apart. */
  readonly account: string;
  readonly direction: Direction | undefined;
  readonly signal: AbortSignal;
}

/** A comment: no event in any dialect. */
const SIGN_OF_LIFE = Buffer.from(": the model is thinking\n\n");
const MAX_DECODED_BYTES = 256 * 1024 * 1024;

export const MODELS: readonly string[] = ["mock", "mock-*"];

/** The provider that answers in this process, in every dialect, for the models `mock` and `mock-…`. */
export function mockProvider(parts: MockParts): Provider {
  const answers = new Answers(parts);
  return Object.freeze({
    name: "mock",
    format: "anthropic",
    formats: ["anthropic", "openai"],
    apiBase: undefined,
    models: MODELS,
    priority: 0,
    timeouts: { connectMs: 0, headMs: 0, idleMs: 0 },
    auth: "none",
    listModels: listedModels,
    answer: (request, exchange, attempt) => answers.answer(request, exchange, attempt),
  } satisfies Provider);
}

class Answers {
  readonly #parts: MockParts;
  readonly #bodies = new Bodies();

  constructor(parts: MockParts) {
    this.#parts = parts;
  }

  /** Rejects only where the signal fires before the head; whatever is wrong with a request is the vendor's error. */
  async answer(request: UpstreamRequest, exchange: Exchange, attempt: Attempt): Promise<ReplyInit> {
    const { signal } = attempt;
    const vendor = exchange.format?.name === "anthropic" ? "anthropic" : "openai";
    const call: Call = {
      dialect: exchange.dialect?.name ?? "",
      vendor,
      path: request.path,
      body: request.body,
      requestId: idFor("req_mock_", request.body),
      account: exchange.credentialHash,
      direction: this.#parts.directions?.(request, exchange),
      signal,
    };
    try {
      return await this.#dispatch(call, request.headers);
    } catch (error) {
      if (signal.aborted) throw error;
      if (error instanceof RequestError) {
        const { status, message, param, code } = error;
        return vendorError(vendor, { status, message, param, code, requestId: call.requestId });
      }
      // Too deep for JSON.stringify, say: a request that no server would take.
      const message = `the request cannot be read: ${error instanceof Error ? error.message : String(error)}`;
      return vendorError(vendor, { status: 400, message, requestId: call.requestId });
    }
  }

  #dispatch(call: Call, headers: readonly string[]): Promise<ReplyInit> {
    const { dialect, vendor } = call;
    const { config } = this.#parts;
    const json = () => jsonOf(this.#bodies, decoded(call.body, headers));
    switch (dialect) {
      case "anthropic-models":
      case "openai-models":
        return this.#plain(call, undefined, models(vendor, call.path));
      case "openai-embeddings": {
        const body = json();
        return this.#plain(call, textIn(body["model"]), embed(body, config.embedding_dimensions));
      }
      case "anthropic-count-tokens": {
        const body = json();
        checkAnthropic(body, false);
        return this.#plain(call, textIn(body["model"]), {
          input_tokens: promptTokens(readAnthropic(body, config.bytes_per_token)),
        });
      }
      case "anthropic-messages": {
        const body = json();
        checkAnthropic(body, true);
        return this.#generate(call, body, readAnthropic(body, config.bytes_per_token), anthropicWording);
      }
      case "openai-chat":
      case "openai-responses": {
        const body = json();
        checkOpenAi(body, dialect === "openai-chat" ? "chat" : "responses");
        return this.#generate(
          call,
          body,
          readOpenAi(body, config.bytes_per_token),
          dialect === "openai-chat" ? chatWording : responsesWording,
        );
      }
      default:
        throw new RequestError(`the embedded provider does not know ${call.path}`, { status: 404 });
    }
  }

  /** A reply without generation; a failing or slow model fails and dawdles here too. */
  async #plain(call: Call, model: string | undefined, body: Json): Promise<ReplyInit> {
    const behaviour = behaviourOf(model ?? "", this.#parts.config);
    const failure = await this.#failure(call, behaviour, false);
    return failure ?? this.#buffered(call, behaviour, body);
  }

  async #generate(call: Call, json: Json, prompt: Prompt, wording: Wording): Promise<ReplyInit> {
    const { config, now } = this.#parts;
    const behaviour = behaviourOf(prompt.model, config);
    // What is cached is looked up when the request comes, and written when the reply begins.
    const cache = this.#cachePlan(call, json, prompt);
    const failure = await this.#failure(call, behaviour, prompt.isStream);
    if (failure !== undefined) return failure;
    cache.commit();
    const { direction } = call;
    const answer = answerTo(prompt, behaviour, config);
    const facts: ReplyFacts = {
      body: call.body,
      json,
      prompt,
      behaviour,
      answer,
      outputTokens: direction?.usage?.outputTokens ?? answerTokens(answer),
      cache: { ...cache, ...direction?.usage },
      now: now(),
      reportsWrites: config.prompt_cache.openai_reports_writes,
    };
    if (!prompt.isStream) return this.#buffered(call, behaviour, wording.whole(facts));
    const events = wording.events(facts);
    return direction?.hangsAfter === undefined
      ? this.#streamed(call, behaviour, events)
      : this.#hanging(
          call,
          direction.hangsAfter === 0 ? [SIGN_OF_LIFE] : events.slice(0, direction.hangsAfter),
        );
  }

  /** Waits for the head, and gives the error that the behaviour asks for. */
  async #failure(call: Call, behaviour: Behaviour, isStream: boolean): Promise<ReplyInit | undefined> {
    if (behaviour.headDelayMs > 0) await this.#parts.sleep(behaviour.headDelayMs, call.signal);
    const { vendor, requestId } = call;
    if (behaviour.isOverloaded && isStream) {
      const event = overloadedEvent(vendor, call.dialect === "openai-responses", requestId);
      return this.#streamed(call, behaviour, [event]);
    }
    const overload = vendor === "anthropic" ? 529 : 503;
    const status = behaviour.isOverloaded ? overload : behaviour.failStatus;
    if (status === 0) return undefined;
    const message = `the embedded provider answers ${status}, as its model's name says`;
    return vendorError(vendor, {
      status,
      message,
      requestId,
      retryAfterSeconds: this.#parts.config.retry_after_seconds,
    });
  }

  #cachePlan(call: Call, json: Json, prompt: Prompt): CachePlan {
    const { cache } = this.#parts;
    const { enabled, min_tokens, min_tokens_by_model, openai_ttl_seconds } = this.#parts.config.prompt_cache;
    if (!enabled) return uncached(promptTokens(prompt));
    const minTokens = Object.hasOwn(min_tokens_by_model, prompt.model)
      ? min_tokens_by_model[prompt.model]!
      : min_tokens;
    if (call.vendor === "anthropic") return planAnthropic(prompt, cache, call.account, minTokens);
    const scope = `${call.account}\0${textIn(json["prompt_cache_key"])}`;
    const ttlMs = json["prompt_cache_retention"] === "24h" ? 86_400_000 : openai_ttl_seconds * 1_000;
    return planOpenAi(prompt, cache, scope, { minTokens, ttlMs });
  }

  #buffered(call: Call, behaviour: Behaviour, value: Json): ReplyInit {
    const body = Buffer.from(JSON.stringify(value));
    const isPaced = behaviour.failsMidstream || behaviour.chunkBytes > 0;
    return {
      status: 200,
      headers: headersOf(call, "application/json"),
      body: isPaced
        ? paced(halves(body), { ...behaviour, eventDelayMs: 0 }, call.signal, this.#parts.sleep)
        : body,
    };
  }

  #streamed(call: Call, behaviour: Behaviour, events: readonly Buffer[]): ReplyInit {
    const body = paced(events, behaviour, call.signal, this.#parts.sleep);
    return { status: 200, headers: streamHeaders(call), body };
  }

  #hanging(call: Call, events: readonly Buffer[]): ReplyInit {
    return { status: 200, headers: streamHeaders(call), body: hanging(events, call.signal) };
  }
}

function streamHeaders(call: Call): string[] {
  return [...headersOf(call, "text/event-stream; charset=utf-8"), "Cache-Control", "no-cache"];
}

function headersOf({ vendor, requestId }: Call, contentType: string): string[] {
  return ["Content-Type", contentType, vendor === "anthropic" ? "request-id" : "x-request-id", requestId];
}

function jsonOf(bodies: Bodies, body: Buffer): Json {
  let value: unknown;
  try {
    value = bodies.read(body);
  } catch {
    throw new RequestError("the body is not JSON");
  }
  const json = objectOf(value);
  if (json === undefined) throw new RequestError("the body is not a JSON object");
  return json;
}

/** The body as it was before the client compressed it. */
function decoded(body: Buffer, headers: readonly string[]): Buffer {
  const encoding = headerValue(headers, "content-encoding")?.trim().toLowerCase() ?? "identity";
  const options = { maxOutputLength: MAX_DECODED_BYTES };
  try {
    if (encoding === "identity" || encoding === "") return body;
    if (encoding === "gzip") return gunzipSync(body, options);
    if (encoding === "br") return brotliDecompressSync(body, options);
    if (encoding === "zstd") return zstdDecompressSync(body, options);
    if (encoding === "deflate") return inflateSync(body, options);
  } catch {
    throw new RequestError(`the body does not decode as ${encoding}`);
  }
  throw new RequestError(`the Content-Encoding ${encoding} is not known`, { status: 415 });
}
