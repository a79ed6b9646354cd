import { z } from "@tokenman/plugin-sdk";
import type { SectionSpec } from "../kernel/config/index.ts";

/**
 * The sections of features that do not have a plugin yet. A config that sets them loads, and is told so; a guard among
 * them cannot be switched on. When a feature's plugin lands, its entry here goes.
 */
export const plannedSections: readonly SectionSpec[] = [
  plan("security.pii", "pii", {
    about: "Finds personal data before it leaves this machine.",
    enabledByDefault: true,
    guard: true,
    schema: z.strictObject({
      action: z
        .enum(["redact", "hash", "log", "block"])
        .default("log")
        .describe("What is done about a finding."),
      allow_list: z.array(z.string()).default([]).describe("Texts that are no findings."),
    }),
  }),
  plan("security.injection", "injection", {
    about: "Finds attempts to turn the model against its instructions.",
    enabledByDefault: true,
    guard: true,
    schema: z.strictObject({
      action: z
        .enum(["log", "block", "warn", "sanitize"])
        .default("log")
        .describe("What is done about a finding."),
    }),
  }),
  plan("tracing", "tracing", {
    about: "OpenTelemetry spans of each request.",
    enabledByDefault: false,
    perProject: false,
    schema: z.strictObject({
      exporter: z.enum(["otlp-grpc", "otlp-http", "stdout"]).default("otlp-grpc").describe("Where spans go."),
      endpoint: z
        .string()
        .default("")
        .describe(
          "The collector's address. Empty: localhost:4317 for otlp-grpc, localhost:4318 for otlp-http.",
        ),
      service_name: z.string().min(1).default("tokenman").describe("What the spans call this service."),
      sample_rate: z.number().min(0).max(1).default(1).describe("The share of requests that are traced."),
      insecure: flag(false, "Talk to the collector without TLS."),
    }),
  }),
  plan("dashboard", "dashboard", {
    about: "The web page on the dashboard port.",
    enabledByDefault: true,
    perProject: false,
    schema: z.strictObject({
      auto_open: flag(false, "Open it in the browser at start."),
      allowed_origins: z
        .array(z.string().min(1))
        .default([])
        .describe("Other web origins that may read the JSON API."),
    }),
  }),
];

interface Plan {
  readonly about: string;
  readonly schema: z.ZodObject;
  readonly enabledByDefault?: boolean;
  readonly guard?: boolean;
  /** Default true. */
  readonly perProject?: boolean;
}

/** The section of a feature without its plugin. */
export function plan(path: string, owner: string, { about, schema, perProject, ...rest }: Plan): SectionSpec {
  return {
    path,
    owner,
    schema: schema.describe(about),
    perProject: perProject ?? true,
    planned: true,
    loaded: false,
    ...rest,
  };
}

/** A setting that is on or off. */
export function flag(fallback: boolean, description: string) {
  return z.boolean().default(fallback).describe(description);
}
