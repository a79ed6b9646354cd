/**
 * The config that sends the traffic of both vendors' formats to one server, with the client's own credential: the
 * providers `anthropic` and `openai` at `url`. `more` is added to both tables.
 */
export function providersAt(
  url: string,
  more: Readonly<Record<string, string | number | boolean>> = {},
): string {
  const lines = Object.entries({ api_base: url, auth: "client", ...more }).map(
    ([key, value]) => `${key} = ${JSON.stringify(value)}`,
  );
  return ["anthropic", "openai"].map((name) => `[providers.${name}]\n${lines.join("\n")}\n`).join("\n");
}
