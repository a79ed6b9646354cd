import { z } from "@tokenman/plugin-sdk";

const MIB = 1024 * 1024;

/** `[cache]`. */
export const cacheSchema = z
  .strictObject({
    enabled: z.boolean().default(true).describe("Answer identical requests from a store."),
    ttl_seconds: z
      .number()
      .min(0)
      .optional()
      .describe(
        "Seconds an answer is kept. Not set: metrics.cache_ttl_seconds. 0: only requests at the same time share one.",
      ),
    policy: z
      .enum(["auto", "all", "deterministic"])
      .default("auto")
      .describe(
        "auto: not where a request asks for chance (a temperature above 0, several choices), for one token, or for tools that the provider runs; all: these too; deterministic: only with temperature 0 or a seed, and embeddings.",
      ),
    coalesce: z
      .boolean()
      .default(true)
      .describe("Of identical requests at the same time, send one, and stream its answer to all."),
    exclude_paths: z
      .array(z.string().min(1))
      .default(["/v1/models*"])
      .describe("Paths that are neither answered nor stored; * stands for any text."),
    ignore_fields: z
      .array(z.string().min(1))
      .default([])
      .refine((fields) => !fields.includes("stream"), {
        message: "a stream and a whole reply are not the same answer: stream cannot be ignored",
      })
      .describe("Top-level fields of the request that make no difference to the answer."),
    max_entry_bytes: z
      .int()
      .min(0)
      .default(4 * MIB)
      .describe("Bytes of the largest answer that is kept; larger ones are not shared from their beginning."),
    memory_bytes: z
      .int()
      .min(0)
      .default(64 * MIB)
      .describe("Bytes of answers kept in memory, over all projects."),
    disk_bytes: z
      .int()
      .min(0)
      .default(256 * MIB)
      .describe(
        "Bytes of answers kept in the data folder, over all projects. 0: none, and none outlive a restart.",
      ),
  })
  .describe("Answers identical requests from a store.");

export type CacheConfig = z.output<typeof cacheSchema>;

/** Of `[metrics]`, what is the cache's. */
export const metricsSchema = z.strictObject({
  cache_ttl_seconds: z.number().min(0).default(300).describe("Seconds the response cache keeps an answer."),
});
