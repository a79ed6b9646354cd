import type { HostInfo, Route, RouteContext } from "@tokenman/plugin-sdk";

const TITLE = "TokenMan's second port";
/** Lines as a terminal has room for them. */
const INTRO = [
  "Clients talk to the other one. The web dashboard is planned; until it is there,",
  "this is what is served here. On the command line, tokenman status, stats,",
  "savings and requests show the same.",
].join("\n");

/** Nothing may be loaded, run, framed or sent from the page. */
const HEADERS = {
  "Content-Security-Policy":
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cache-Control": "no-store",
} as const;

/** A row of the page: what may be asked for, and what it answers where that is known. */
interface Entry {
  readonly method: string;
  readonly path: string;
  readonly summary: string;
}

/** Answers `/` with what the port serves: as a page for browsers, as text for everybody else. */
export function frontPage(
  host: HostInfo,
  summaries: ReadonlyMap<string, string>,
): (context: RouteContext) => void {
  return ({ request, response }) => {
    const entries = entriesOf(host.registry.all("route"), summaries);
    const html = /\btext\/html\b/.test(request.headers.accept ?? "");
    const body = Buffer.from(html ? page(entries, host.version) : text(entries, host.version));
    response.writeHead(200, {
      ...HEADERS,
      "Content-Type": `text/${html ? "html" : "plain"}; charset=utf-8`,
      "Content-Length": body.length,
      Vary: "Accept",
    });
    response.end(request.method === "HEAD" ? undefined : body);
  };
}

function entriesOf(routes: readonly Route[], summaries: ReadonlyMap<string, string>): Entry[] {
  const served = routes
    .filter(({ port, method, path }) => port !== "proxy" && method !== "HEAD" && path !== "/")
    .flatMap(({ method, path }) =>
      path.endsWith("*") ? under(method, path, summaries) : `${method} ${path}`,
    );
  return [...new Set(served)]
    .map((name) => {
      const [method, path] = name.split(" ", 2) as [string, string];
      return { method, path, summary: brief(summaries.get(name)) };
    })
    .sort((left, right) => compare(left.path, right.path) || compare(left.method, right.method));
}

/** What is described of the paths that a route with a `*` at its end stands for. */
function under(method: string, path: string, summaries: ReadonlyMap<string, string>): string[] {
  const prefix = `${method} ${path.slice(0, -1)}`;
  return [...summaries.keys()].filter((name) => name.startsWith(prefix));
}

/** What comes first of a summary: the description of the API has the rest. */
function brief(summary = ""): string {
  return summary.split("; ", 1)[0]!;
}

function text(entries: readonly Entry[], version: string): string {
  const width = Math.max(...entries.map(({ path }) => path.length));
  const lines = entries.map(({ method, path, summary }) =>
    `  ${method.padEnd(6)} ${path.padEnd(width)}  ${summary}`.trimEnd(),
  );
  return `${TITLE} (version ${version})\n\n${INTRO}\n\n${lines.join("\n")}\n`;
}

function page(entries: readonly Entry[], version: string): string {
  const rows = entries.map(({ method, path, summary }) => {
    const shown = escaped(path);
    // What has a parameter, or changes something, is nothing to click on.
    const isLink = method === "GET" && !path.includes(":");
    return `<tr><td>${escaped(method)}<td>${isLink ? `<a href="${shown}">${shown}</a>` : shown}<td>${escaped(summary)}`;
  });
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="color-scheme" content="light dark">
<meta name="viewport" content="width=device-width">
<title>TokenMan</title>
<h1>${TITLE}</h1>
<p>Version ${escaped(version)}. ${INTRO}
<table>
${rows.join("\n")}
</table>
`;
}

function escaped(value: string): string {
  return value.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

function compare(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}
