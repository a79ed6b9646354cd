import { definePlugin, Pricing } from "@tokenman/plugin-sdk";
import { Catalogue } from "./catalogue.ts";
import { Overrides } from "./overrides.ts";
import { Pricer } from "./pricer.ts";
import { pricingSchema } from "./schema.ts";

/** What tokens cost: the bundled catalogue, under the config's own prices. */
export default definePlugin({
  name: "pricing",
  version: "0.1.0",
  apiVersion: 1,
  description: "Prices usage, to the nano-dollar, from a bundled catalogue and the config",
  section: "pricing",
  configSchema: pricingSchema,
  provides: [Pricing],
  async setup(ctx) {
    // The catalogue does not change while the process runs: generations share what was looked up.
    const catalogue = await ctx.keep("catalogue", () => new Catalogue());
    ctx.provide(Pricing, new Pricer(new Overrides(ctx.config), catalogue));
  },
});
