import {
  AttemptBill,
  Bills,
  definePlugin,
  Ledger,
  optional,
  Pricing,
  Tokenizer,
  z,
} from "@tokenman/plugin-sdk";
import { Biller } from "./bill.ts";
import { Recorder } from "./recorder.ts";

const configSchema = z
  .strictObject({
    timings: z.boolean().default(true).describe("Record how long each plugin took with each request."),
  })
  .describe("Turns each request into the ledger's rows.");

/** Records every exchange: how it began, what was tried, what was used and paid, and how it ended. */
export default definePlugin({
  name: "recorder",
  version: "0.1.0",
  apiVersion: 1,
  description: "Records every request, with what it used and cost, in the ledger",
  section: "recorder",
  configSchema,
  needs: { ledger: Ledger, pricing: optional(Pricing), tokenizer: optional(Tokenizer) },
  provides: [Bills],
  stage: "ingress",
  async setup(ctx) {
    const { ledger, pricing, tokenizer } = ctx.services;
    const faulty = await ctx.keep("impossible usages", () => new Set<string>());
    const biller = new Biller({ pricing, tokenizer, log: ctx.log, faulty });
    const recorder = new Recorder({ ledger, biller, bodyBytes: ctx.host.storedBodyBytes });
    ctx.provide(Bills, { of: (attempt) => attempt.get(AttemptBill) });
    if (ctx.config.timings) ctx.contribute("hookObserver", { tapped: recorder.tapped });
    ctx.pipeline((_config, hooks) => {
      hooks.request.tap(recorder.request);
      hooks.response.tap(recorder.response);
      hooks.lifecycle.for("settled").tap(recorder.settled);
    });
  },
});
