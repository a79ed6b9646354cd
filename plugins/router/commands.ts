import { type Command, type CommandContext, readAnswer, TokenmanError, z } from "@tokenman/plugin-sdk";
import type { ShownCandidate, ShownRoute } from "./shown-route.ts";

export const routeCommand: Command = {
  usage: "route <model>",
  description: "Show which providers would be asked for a model, in which order, with whose key, and why",
  options: [
    { flag: "--format <name>", description: 'Of clients of one format: "anthropic" or "openai"' },
    { flag: "--no-key", description: "Of clients that send no key of their own" },
    { flag: "--json", description: "Print JSON" },
  ],
  examples: ["tokenman route claude-opus-4-5", "tokenman route fast --format openai"],
  run,
};

const routesShape = z.object({
  routes: z.array(
    z.object({
      format: z.string(),
      candidates: z.array(
        z.object({
          provider: z.string(),
          model: z.string().optional(),
          credential: z.enum(["the client's", "its own key", "none"]),
          account: z.string().optional(),
          reason: z.string(),
          circuit: z.string().optional(),
          coolDownMs: z.number().optional(),
        }),
      ),
      ruledOut: z.array(z.object({ provider: z.string(), reason: z.string() })),
      spread: z.boolean(),
    }),
  ),
});

async function run(context: CommandContext): Promise<void> {
  const { args, options, fetch, print } = context;
  const query = new URLSearchParams({ model: String(args["model"]) });
  if (options["format"] !== undefined) query.set("format", String(options["format"]));
  if (options["key"] === false) query.set("key", "false");
  const response = await fetch(`/api/route?${query}`);
  if (!response.ok) throw new TokenmanError("TM_USAGE", await problem(response));
  const found = await readAnswer(context, response, routesShape);
  const routes = found.routes as readonly ShownRoute[];
  if (options["json"] === true) print(JSON.stringify(routes));
  else for (const line of routes.flatMap(lines)) print(line);
}

async function problem(response: Response): Promise<string> {
  const { error } = (await response.json().catch(() => ({}))) as {
    readonly error?: { readonly message: string };
  };
  return error?.message ?? `TokenMan answered ${response.status}`;
}

function lines({ format, candidates, ruledOut, spread }: ShownRoute): string[] {
  const rows = candidates.map((candidate, index) => [
    `${index + 1}.`,
    candidate.account ?? candidate.provider,
    candidate.model === undefined ? "" : `as ${candidate.model}`,
    candidate.credential === "none"
      ? "no key"
      : candidate.credential === "its own key"
        ? "its own key"
        : "the client's key",
    [candidate.reason, ...health(candidate)].join("; "),
  ]);
  for (const { provider, reason } of ruledOut) rows.push(["-", provider, "", "", reason]);
  if (rows.length === 0) rows.push(["-", "nobody", "", "", "no provider speaks this format"]);
  const title = `Clients of the ${format} format${spread ? " (conversations begin with one or another, by weight)" : ""}`;
  return [title, ...columns(rows).map((row) => `  ${row}`)];
}

function health({ circuit, coolDownMs }: ShownCandidate): string[] {
  return [
    ...(circuit === undefined || circuit === "closed" ? [] : [`its circuit is ${circuit}`]),
    ...(coolDownMs === undefined ? [] : [`left alone for ${Math.ceil(coolDownMs / 1_000)} s`]),
  ];
}

/** As wide as they must be; empty ones take no room. */
function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, at) => Math.max(...rows.map((row) => row[at]!.length)));
  return rows.map((row) =>
    row
      .flatMap((cell, at) => (widths[at] === 0 ? [] : [cell.padEnd(widths[at]!)]))
      .join("  ")
      .trimEnd(),
  );
}
