import {
  type Circuits,
  type HostInfo,
  type Ledger,
  type LedgerDimension,
  type LedgerGroup,
  type LedgerOnly,
  type LedgerPoint,
  type Provider,
  type Route,
  TokenmanError,
  z,
} from "@tokenman/plugin-sdk";
import { budget } from "./budget.ts";
import { circuit, circuitOf } from "./circuit.ts";
import { type Endpoint, endpoint } from "./endpoint.ts";
import { figures, figuresOf } from "./figures.ts";
import {
  badQuery,
  dayBounds,
  figureParameters,
  groupParameters,
  historyParameters,
  rangeOf,
  requestParameters,
  savingParameters,
  stepOf,
} from "./query.ts";
import { record, recordOf, summary, summaryOf } from "./request.ts";
import { holdout, holdoutOf, pluginSaving, pluginSavingsOf } from "./savings.ts";

export interface World {
  readonly host: HostInfo;
  /** Undefined where nobody keeps one. */
  readonly ledger: Ledger | undefined;
  /** Undefined where nobody leaves failing providers alone. */
  readonly circuits: Circuits | undefined;
}

const range = {
  from: z.number().describe("Milliseconds since 1970."),
  to: z.number().describe("Exclusive."),
};
const NOTHING = z.strictObject({});
const group = figures.extend({ name: z.string() });

/** The paths that this plugin answers itself. */
export function endpoints({ host, ledger, circuits }: World): Endpoint[] {
  const kept = (): Ledger => {
    if (ledger === undefined)
      throw new TokenmanError("TM_LEDGER_UNAVAILABLE", "no plugin keeps a ledger: the plugin store is off");
    return ledger;
  };
  const groups = async (
    dimension: LedgerDimension,
    query: z.output<z.ZodObject<typeof groupParameters>>,
  ): Promise<{ from: number; to: number; groups: readonly LedgerGroup[] }> => {
    const span = rangeOf(query, Date.now());
    const { limit } = query;
    const found = await kept().groups(dimension, span, {
      ...onlyOf(query),
      ...(limit !== undefined && { limit }),
    });
    return { ...span, groups: found };
  };
  const pointOf = ({ at, ...sums }: LedgerPoint) => ({ at, ...figuresOf(sums) });
  const named = ({ name, ...sums }: LedgerGroup) => ({ name, ...figuresOf(sums) });

  return [
    endpoint({
      path: "/api/stats",
      summary: "Requests, tokens, cost and savings over a range, and how TokenMan is now",
      parameters: z.strictObject(figureParameters),
      answer: figures.extend({
        ...range,
        activeRequests: z.number(),
        uptimeSeconds: z.number(),
        holdout: holdout.describe("Over whole days, of all projects."),
        ledger: z.strictObject({
          lostRows: z.number().describe("Rows that could not be written since the start."),
          waitingRows: z.number().describe("Rows that are not on disk yet."),
          failing: z.string().nullable().describe("Why nothing can be written at present."),
        }),
      }),
      async answerTo(query) {
        const asked = rangeOf(query, Date.now());
        const [{ from, to, ...sums }, saved] = await Promise.all([
          kept().totals(asked, onlyOf(query)),
          kept().savings(asked),
        ]);
        const { activeExchanges, startedAt } = host.status();
        const { lost, waiting, failing } = kept().state;
        return {
          from,
          to,
          ...figuresOf(sums),
          activeRequests: activeExchanges,
          uptimeSeconds: Math.max(0, Date.now() - startedAt) / 1000,
          holdout: holdoutOf(saved),
          ledger: { lostRows: lost, waitingRows: waiting, failing: failing ?? null },
        };
      },
    }),
    endpoint({
      path: "/api/stats/history",
      summary: "The same figures step by step; a step without requests is left out",
      parameters: z.strictObject(historyParameters),
      answer: z.strictObject({
        ...range,
        stepMs: z.number().nullable().describe("Null for days of a time zone: some have 23 hours, or 25."),
        zone: z.string().nullable().describe("The time zone of the days."),
        points: z.array(figures.extend({ at: z.number().describe("Where the step begins.") })),
      }),
      async answerTo(query) {
        const now = Date.now();
        const only = onlyOf(query);
        const asked = rangeOf(query, now);
        if (query.step === "day") {
          const zone = query.zone ?? "UTC";
          const bounds = dayBounds(asked, zone);
          const days = await kept().between(bounds, only);
          return { from: bounds[0]!, to: bounds.at(-1)!, stepMs: null, zone, points: days.map(pointOf) };
        }
        if (query.zone !== undefined) throw badQuery('zone: only with step "day"');
        const stepMs = query.step ?? stepOf(asked, Object.keys(only).length > 0, now);
        // Steps count from the beginning: a moment that was asked for stays, a range gets whole steps.
        const from = query.since ?? Math.floor(asked.from / stepMs) * stepMs;
        const points = await kept().history({ from, to: asked.to }, stepMs, only);
        return { from, to: asked.to, stepMs, zone: null, points: points.map(pointOf) };
      },
    }),
    endpoint({
      path: "/api/savings",
      summary:
        "What each plugin saved or lost by which cause, the most first, and what held-out sessions say",
      parameters: z.strictObject(savingParameters),
      answer: z.strictObject({ ...range, plugins: z.array(pluginSaving), holdout }),
      async answerTo({ project, ...asked }) {
        const found = await kept().savings(
          rangeOf(asked, Date.now()),
          project === undefined ? {} : { project },
        );
        const { from, to } = found;
        return { from, to, plugins: pluginSavingsOf(found), holdout: holdoutOf(found) };
      },
    }),
    endpoint({
      path: "/api/requests",
      summary: "Requests, newest first, page by page; a page may have few rows, or none, and yet a next one",
      parameters: z.strictObject(requestParameters),
      answer: z.strictObject({
        rows: z.array(summary),
        next: z.string().nullable().describe("The next page's `cursor`; null at the end."),
      }),
      async answerTo({ since, until, limit, cursor, ...filter }) {
        if (since !== undefined && until !== undefined) rangeOf({ since, until }, until);
        const given = { ...filter, from: since, to: until };
        const page = await kept().page(defined(given), defined({ limit, cursor }));
        return { rows: page.rows.map(summaryOf), next: page.next ?? null };
      },
    }),
    endpoint({
      path: "/api/requests/:id",
      summary: "One request: attempts, timings, savings, and bodies where they are stored",
      parameters: NOTHING,
      answer: record,
      async answerTo(_query, { params }) {
        const id = params["id"] ?? "";
        const found = id.length > 100 ? undefined : await kept().request(id);
        if (found === undefined)
          throw new TokenmanError("TM_NOT_FOUND", "The ledger has no request of this id.");
        return recordOf(found);
      },
    }),
    endpoint({
      path: "/api/projects",
      summary: "Figures by project, the dearest first, and the projects that the config names",
      parameters: z.strictObject(groupParameters),
      answer: z.strictObject({
        ...range,
        projects: z.array(group),
        configured: z.array(z.string()).describe("Those that the config names."),
      }),
      async answerTo(query) {
        const { groups: found, ...span } = await groups("project", query);
        const projects = host.config()["projects"];
        const configured = typeof projects === "object" && projects !== null ? Object.keys(projects) : [];
        return { ...span, projects: found.map(named), configured };
      },
    }),
    endpoint({
      path: "/api/models",
      summary: "Figures by model, the dearest first",
      parameters: z.strictObject(groupParameters),
      answer: z.strictObject({ ...range, models: z.array(group) }),
      async answerTo(query) {
        const { groups: found, ...span } = await groups("model", query);
        return { ...span, models: found.map(named) };
      },
    }),
    endpoint({
      path: "/api/providers",
      summary: "Figures by provider, the dearest first, and the providers of the config with their circuits",
      parameters: z.strictObject(groupParameters),
      answer: z.strictObject({
        ...range,
        providers: z.array(group),
        configured: z.array(
          z.strictObject({
            name: z.string(),
            formats: z.array(z.string()),
            apiBase: z.string().nullable().describe("Null for one that answers in the process."),
            models: z.array(z.string()).describe("Empty: any of its format."),
            priority: z.number(),
            auth: z.enum(["client", "key", "none"]),
            circuit: circuit.nullable().describe("Whether it is asked at present; null without a breaker."),
          }),
        ),
      }),
      async answerTo(query) {
        const { groups: found, ...span } = await groups("provider", query);
        const views = new Map(circuits?.states().map((view) => [view.provider, circuitOf(view)]));
        const configured = host.registry
          .all("provider")
          .map((provider) => ({ ...providerOf(provider), circuit: views.get(provider.name) ?? null }));
        return { ...span, providers: found.map(named), configured };
      },
    }),
    endpoint({
      path: "/api/config",
      summary: "The config with its defaults, without the secrets in it",
      parameters: NOTHING,
      answer: z.strictObject({
        file: z.string().nullable(),
        generation: z.number(),
        config: z.record(z.string(), z.unknown()),
      }),
      answerTo: () => ({
        file: host.configFile ?? null,
        generation: host.generation,
        config: host.config(),
      }),
    }),
    {
      method: "GET",
      path: "/api/security/budget",
      summary: "The budget's windows, in US dollars; none where no budget is on",
      parameters: NOTHING,
      answer: budget,
      // The plugin that keeps budgets does; while it is off, `whereOff`.
      handle: undefined,
    },
  ];
}

/** Behind the routes of the plugins that guard: answers for those that are off. */
export const whereOff: Route = {
  port: "dashboard",
  method: "GET",
  path: "/api/security/*",
  handle({ request, json }) {
    const path = request.url?.replace(/\?.*/s, "");
    if (path === "/api/security/budget") {
      json(200, { enabled: false, windows: [] } satisfies z.input<typeof budget>);
      return;
    }
    const { code, status, message } = new TokenmanError("TM_NOT_FOUND");
    json(status, { error: { code, message } });
  },
};

function onlyOf({ project, provider, model }: { [K in LedgerDimension]?: string | undefined }): LedgerOnly {
  return defined({ project, provider, model });
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };
/** Without what is undefined. */
function defined<T extends object>(value: T): Defined<T> {
  return Object.fromEntries(Object.entries(value).filter(([, each]) => each !== undefined)) as Defined<T>;
}

function providerOf({ name, format, formats, apiBase, models, priority, auth }: Provider) {
  return {
    name,
    formats: [...new Set([format, ...(formats ?? [])])],
    apiBase: apiBase === undefined ? null : withoutCredentials(apiBase),
    models: [...models],
    priority,
    auth,
  };
}

function withoutCredentials(address: string): string {
  const url = URL.parse(address);
  if (url === null || (url.username === "" && url.password === "")) return address;
  url.username = "";
  url.password = "";
  return url.href.replace(/\/$/, "");
}
