import { type Route, type RouteContext, TokenmanError, type z } from "@tokenman/plugin-sdk";
import { type Parameters, readQuery } from "./query.ts";

/** A path of the API: what it takes, what it answers, and how. The document and the routes are both made of it. */
export interface Endpoint {
  readonly method: Route["method"];
  readonly path: string;
  readonly summary: string;
  readonly parameters: Parameters;
  /** Of the answer with status 200. */
  readonly answer: z.ZodType;
  /** Undefined: another plugin serves it. */
  readonly handle: Route["handle"] | undefined;
}

/** An endpoint whose answer is JSON. The types hold parameters, answer and handler together. */
export function endpoint<P extends Parameters, A extends z.ZodType>(options: {
  readonly path: string;
  readonly summary: string;
  readonly parameters: P;
  readonly answer: A;
  answerTo(query: z.output<P>, context: RouteContext): Promise<z.input<A>> | z.input<A>;
}): Endpoint {
  const { path, summary, parameters, answer } = options;
  return {
    method: "GET",
    path,
    summary,
    parameters,
    answer,
    async handle(context) {
      try {
        const query = readQuery(parameters, context.query);
        context.json(200, await options.answerTo(query, context));
      } catch (error) {
        if (!(error instanceof TokenmanError) || !TELLABLE.has(error.code)) throw error;
        context.json(error.status, { error: { code: error.code, message: error.message } });
      }
    },
  };
}

/** Not the caller's fault, and no secret. */
const TELLABLE = new Set(["TM_LEDGER_UNAVAILABLE", "TM_LEDGER_TIMEOUT"]);
