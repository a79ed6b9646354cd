import { definePlugin, withHeader, z } from "@tokenman/plugin-sdk";

/** What RFC 9110 §5.6.2 allows in a field name, and §5.5 in a value. */
const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

const configSchema = z
  .strictObject({
    name: z.string().regex(NAME, "expected a header's name").default("X-Team").describe("The header's name."),
    value: z
      .string()
      .regex(VALUE, "expected text without line breaks")
      .default("")
      .describe("Its value. Empty: no header is added."),
  })
  .describe("Adds a header to the requests that go upstream.");

/** Puts a header on every attempt; one of that name which the client sent is replaced. */
export default definePlugin({
  name: "header",
  version: "1.0.0",
  apiVersion: 1,
  description: "Adds a header to the requests that go upstream",
  configSchema,
  setup(ctx) {
    // Once for each distinct effective config: a project can have a value of its own.
    ctx.pipeline(({ name, value }, hooks) => {
      // Without a tap there is nothing to run: what is off costs nothing.
      if (value === "") return;
      hooks.beforeUpstream.tap((_exchange, attempt) => {
        attempt.headers = withHeader(attempt.headers, name, value);
      });
    });
  },
});
