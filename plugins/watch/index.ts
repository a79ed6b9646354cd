import { definePlugin, z } from "@tokenman/plugin-sdk";
import { Follower } from "./follower.ts";

const configSchema = z
  .strictObject({
    debounce_ms: z
      .int()
      .min(0)
      .max(60_000)
      .default(100)
      .describe("Milliseconds without a further change after which a change is acted on."),
  })
  .describe("Loads config and plugins anew when their files change.");

/** Hot reload: asks for a new generation when the content of the config file or of a plugin's source has changed. */
export default definePlugin({
  name: "watch",
  version: "0.1.0",
  apiVersion: 1,
  description: "Loads config and plugins anew when their files change",
  section: "watch",
  configSchema,
  async setup(ctx) {
    const { host, log, config } = ctx;
    // One for all generations: while one replaces another, no change may go unnoticed.
    const follower = await ctx.keep(
      "follower",
      () => new Follower(),
      (old) => old.close(),
    );
    const follow = (files: readonly string[]) =>
      follower.follow({
        files: [...host.watched, ...files],
        debounceMs: config.debounce_ms,
        changed: (reason) => host.reload(reason),
        log,
      });
    ctx.pipeline((_config, hooks) => {
      const { lifecycle } = hooks;
      lifecycle.for("ready").tap(async () => {
        // Until it is swapped in, a later generation leaves the follower to the one that serves.
        if (!follower.following) await follow([]);
      });
      // What a refused generation failed over may be none of the files of the one that serves.
      lifecycle.for("reload").tap((event) => follow(event.files ?? []));
    });
  },
});
