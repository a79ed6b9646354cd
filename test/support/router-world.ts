import assert from "node:assert/strict";
import type {
  Candidate,
  ClientCredential,
  Dialect,
  ErrorCode,
  Exchange,
  Format,
  Provider,
  ReplyInit,
} from "@tokenman/plugin-sdk";
import anthropic from "../../plugins/anthropic/index.ts";
import openai from "../../plugins/openai/index.ts";
import router from "../../plugins/router/index.ts";
import { fakeExchange, setUp } from "./fake-setup.ts";

const vendors = await Promise.all([setUp(anthropic), setUp(openai)]);
const formats = vendors.flatMap((setup) => setup.contributed("format")) as Format[];
/** The vendors' dialects. */
export const dialects = vendors.flatMap((setup) => setup.contributed("dialect")) as Dialect[];

/** Stands for the embedded provider: answers in-process, in both formats. */
const MOCK = {
  name: "mock",
  format: "openai",
  formats: ["openai", "anthropic"],
  apiBase: undefined,
  models: ["mock", "mock-*"],
  priority: 0,
  timeouts: { connectMs: 0, headMs: 0, idleMs: 0 },
  auth: "none",
  answer: () => ({ status: 200 }),
} satisfies Provider;

/** What the router made of it. */
interface Asked {
  readonly candidates: readonly Candidate[];
  readonly ruledOut: readonly { readonly provider: string; readonly reason: string }[];
  readonly refused: { readonly code: ErrorCode; readonly message: string } | undefined;
}

/** What the router sees of a request. */
interface Ask {
  readonly dialect?: string;
  /** Of an opaque request. */
  readonly format?: string | undefined;
  readonly model?: string | undefined;
  readonly key?: string;
  readonly subscription?: boolean;
  readonly path?: string;
  readonly target?: string;
  readonly session?: string;
}

/** The router over these providers and the embedded one, asked without a kernel. */
export async function routing(providers: object, config: object = {}) {
  const setup = await setUp(router, {
    config,
    sections: { providers },
    registry: { format: formats, provider: [MOCK] },
  });
  const pipeline = setup.pipeline();
  for (const ready of pipeline.lifecycle.ready ?? []) await ready();
  const ask = async (request: Ask): Promise<Asked> => {
    const { key } = request;
    const dialect = dialects.find((one) => one.name === request.dialect);
    const format = formats.find((one) => one.name === (dialect?.format ?? request.format));
    const credential: ClientCredential | undefined =
      key === undefined ? undefined : { kind: "key", header: "authorization", secret: key };
    let refused: Asked["refused"];
    const exchange = fakeExchange({
      dialect,
      format,
      credential,
      subscription: request.subscription ?? false,
      session: request.session ?? "s",
      request: {
        path: request.path ?? "/v1/x",
        target: request.target ?? "/v1/x",
        headers: [],
      } as unknown as Exchange["request"],
      description: {
        model: request.model,
        modelPointer: request.model === undefined ? undefined : "/model",
        stream: false,
        maxOutputTokens: undefined,
        tools: "none",
      },
      candidates: [],
      ruledOut: [],
      refuse(error): ReplyInit {
        refused = error;
        return { status: error.status ?? 500 };
      },
    });
    for (const tap of pipeline.request)
      assert.equal((await tap(exchange)) !== undefined, refused !== undefined);
    return { candidates: exchange.candidates, ruledOut: exchange.ruledOut, refused };
  };
  return { ask, pipeline, setup };
}

/** "name", "name=model", and "!" for the client's credential, "+" for a key of its own, "-" for none. */
export const shown = ({ candidates }: Asked) =>
  candidates.map(({ provider, model, credential }) => {
    const mark = { client: "!", key: "+", none: "-" }[credential.kind];
    return `${mark}${provider.name}${model === undefined ? "" : `=${model}`}`;
  });

/** Clients of both vendors with keys of their own. */
export const CHAT = { dialect: "openai-chat", key: "sk-client" } as const;
export const MESSAGES = { dialect: "anthropic-messages", key: "sk-ant-client" } as const;

process.env["ROUTER_TEST_KEY"] = "sk-own";
/** A provider with a key of TokenMan's, "sk-own". */
export const KEYED = { key_ref: "env:ROUTER_TEST_KEY" };
export const GROQ = { format: "openai", api_base: "https://api.groq.com/openai/v1", ...KEYED };
