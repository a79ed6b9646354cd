import { z } from "@tokenman/plugin-sdk";
import {
  parseConfig,
  type RawConfig,
  type SectionSpec,
  type ValidateOptions,
  type Validation,
  validateConfig,
} from "../../kernel/config/index.ts";
import { designSections } from "./support/design-sections.ts";

export const FILE = "/etc/tokenman/tokenman.toml";
export const HOME = "/home/ada";

/** A router's sections, as a plugin that takes maps and lists would declare them. */
export const providers: SectionSpec = {
  path: "providers",
  owner: "router",
  perProject: false,
  loaded: true,
  schema: z
    .record(
      z.string(),
      z.strictObject({
        name: z.string().optional(),
        format: z.enum(["anthropic", "openai"]).optional(),
        api_base: z.string().optional(),
        auth: z.enum(["client", "key", "none"]).default("client"),
        key_ref: z
          .string()
          .regex(/^(env|file|keyring|keychain):/, "expected a reference such as env:NAME")
          .optional(),
        models: z.array(z.string()).default([]),
        enabled: z.boolean().default(true),
        priority: z.int().default(0),
        timeout: z.number().min(0).default(600),
      }),
    )
    .default({}),
};
export const routing: SectionSpec = {
  path: "routing",
  owner: "router",
  perProject: true,
  loaded: true,
  schema: z.strictObject({
    default_provider: z.string().default("anthropic"),
    fallback_enabled: z.boolean().default(true),
    heartbeat_model: z.string().default(""),
    model_map: z.record(z.string(), z.string()).default({}),
  }),
};

/** All sections of the design. */
export const allSections: readonly SectionSpec[] = [providers, routing, ...designSections];

/** The planned sections as they will be once their plugins exist. */
export const builtSections: readonly SectionSpec[] = [
  providers,
  routing,
  ...designSections.map((spec) => ({ ...spec, planned: false, loaded: true })),
];

export function raw(text: string, env: Readonly<Record<string, string>> = {}): RawConfig {
  return { file: FILE, text, table: parseConfig(text, FILE), env: new Map(Object.entries(env)), home: HOME };
}

export function validate(
  text: string,
  options: {
    readonly env?: Readonly<Record<string, string>>;
    readonly sections?: readonly SectionSpec[];
    readonly validate?: ValidateOptions;
  } = {},
): Promise<Validation> {
  return validateConfig(raw(text, options.env), options.sections ?? builtSections, options.validate);
}

/** "line:column CODE message", or the variable's name for the place. */
export function summaries(validation: Validation): string[] {
  return validation.problems.map(({ place, code, message }) => {
    const at = place?.line === undefined ? (place?.file ?? "nowhere") : `${place.line}:${place.column}`;
    return `${at.replace(FILE, "file")} ${code} ${message}`;
  });
}

/** A plugin's section as a third party would have it. */
export function thirdParty(
  name: string,
  schema: SectionSpec["schema"],
  more: Partial<SectionSpec> = {},
): SectionSpec {
  return { path: `plugins.configs.${name}`, owner: name, schema, perProject: true, loaded: true, ...more };
}
