import { Pricing, type ServiceToken } from "@tokenman/plugin-sdk";
import plugin from "../../plugins/pricing/index.ts";
import { validated } from "./fake-setup.ts";

/** The service as the plugin provides it, with the section as the config file would have it. */
export async function pricing(section: unknown = {}): Promise<Pricing> {
  let provided: Pricing | undefined;
  await plugin.setup({
    config: validated(plugin.configSchema, section),
    keep: async (_key: string, make: () => unknown) => make(),
    provide(token: ServiceToken<unknown>, value: unknown) {
      if (token === Pricing) provided = value as Pricing;
    },
  } as never);
  if (provided === undefined) throw new Error("the plugin provided no Pricing");
  return provided;
}
