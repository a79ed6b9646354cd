import {
  type Candidate,
  Circuits,
  definePlugin,
  type Exchange,
  ModelOverride,
  optional,
  type Provider,
  type ReplyInit,
  speaks,
  withoutHeaders,
} from "@tokenman/plugin-sdk";
import { Affinity } from "./affinity.ts";
import { rename, restore } from "./alias.ts";
import { CREDENTIAL_HEADERS } from "./carriers.ts";
import { Catalogue } from "./catalogue.ts";
import { checkRoutes, checkWritten } from "./check.ts";
import { routeCommand } from "./commands.ts";
import { ConfiguredProvider } from "./configured-provider.ts";
import { connectionsOf } from "./connection.ts";
import { CoolDowns } from "./cool-downs.ts";
import { type Admission, admit } from "./credentials.ts";
import { Keys } from "./keys.ts";
import { modelInPath } from "./model-path.ts";
import { Models } from "./models.ts";
import { type Plan, RouteTable, type RuledOut, spreadOver } from "./route-table.ts";
import {
  BUILT_IN,
  type ProvidersConfig,
  providersSchema,
  type RoutingConfig,
  routingSchema,
} from "./schema.ts";
import { shownRoutes } from "./shown-route.ts";
import { Ways } from "./way.ts";

/** Decides which providers may serve a request, and with whose credential each would be asked. */
export default definePlugin({
  name: "router",
  version: "0.1.0",
  apiVersion: 1,
  description:
    "Chooses providers by model map, model list, format and default; keeps credentials where they belong; lists models",
  section: "routing",
  configSchema: routingSchema,
  extraSections: { providers: providersSchema },
  needs: { circuits: optional(Circuits), override: optional(ModelOverride) },
  commands: [routeCommand],
  stage: "route",
  onError: "closed",
  check: checkWritten,
  async setup(ctx) {
    const { host, log } = ctx;
    const { registry } = host;
    const { override } = ctx.services;
    const configured = ctx.section("providers") as ProvidersConfig;
    const formats = () => registry.all("format");
    const connections = await connectionsOf(configured, log);
    const disabled = new Set<string>();
    const builtIn = BUILT_IN.filter((name) => !Object.hasOwn(configured, name));
    for (const [name, config] of Object.entries(configured)) {
      if (config.enabled) {
        const connection = connections.get(name);
        ctx.contribute("provider", new ConfiguredProvider(name, config, connection, formats, log));
      } else disabled.add(name);
    }
    const defaults = providersSchema.parse(Object.fromEntries(builtIn.map((name) => [name, {}])));
    for (const name of builtIn) {
      ctx.contribute("provider", new ConfiguredProvider(name, defaults[name]!, undefined, formats, log));
    }
    const affinity = await ctx.keep("affinity", () => new Affinity());
    const coolDowns = await ctx.keep("cool-downs", () => new CoolDowns());
    const catalogue = await ctx.keep("models", () => new Catalogue());

    const tableFor = (routing: RoutingConfig): (() => RouteTable) => {
      let made: RouteTable | undefined;
      return () => {
        made ??= new RouteTable({
          routing,
          providers: registry.all("provider"),
          formats: formats(),
          disabled,
        });
        return made;
      };
    };
    const shared = tableFor(ctx.config);
    /** Those of all pipelines: projects may route differently. */
    const tables: (() => RouteTable)[] = [];
    ctx.contribute("route", {
      port: "dashboard",
      method: "GET",
      path: "/api/route",
      async handle({ query, json }) {
        const model = query.get("model") ?? "";
        const format = query.get("format") ?? undefined;
        const names = formats().map(({ name }) => name);
        if (model === "" || (format !== undefined && !names.includes(format))) {
          const message = `expected model=NAME and, if any, format=${names.join(" or ")}`;
          json(400, { error: { code: "TM_BAD_QUERY", message } });
          return;
        }
        const asked = { model, format, hasKey: query.get("key") !== "false" };
        const health = { circuits: ctx.services.circuits, coolDowns };
        json(200, { routes: await shownRoutes(shared(), formats(), asked, health) });
      },
    });

    ctx.pipeline((routing, hooks) => {
      const table = tableFor(routing);
      tables.push(table);
      // A route to what does not exist is found before the generation serves; one pipeline's taps speak for all projects.
      hooks.lifecycle.for("ready").tap(() => checkRoutes(tables, log));
      const needs = needsOf(
        routing,
        registry.all("provider"),
        formats().map(({ name }) => name),
      );
      const ways = new Ways(affinity, needs.moves ? routing.affinity_seconds * 1_000 : 0);
      const models = new Models({
        host,
        log,
        catalogue,
        ttlMs: routing.models_ttl_seconds * 1_000,
        waitMs: routing.models_wait_seconds * 1_000,
        allFormats: routing.models_of_all_formats,
      });
      const told = new Told();

      const routed = (exchange: Exchange): ReplyInit | undefined | Promise<ReplyInit | undefined> => {
        const other = override?.modelFor(exchange);
        const model = other ?? exchange.description?.model ?? modelInPath(exchange);
        const usual = table().plan(exchange.format?.name, model);
        const plan = usual.isSpread ? spreadOver(usual, exchange.session) : usual;
        const admission = admit(plan, exchange);
        const conclude = (admitted: Admission) => {
          for (const failure of admitted.keyFailures)
            log.error({ err: failure }, "a key_ref could not be resolved");
          for (const { provider, reason } of told.newIn(admitted.ruledOut))
            log.info({ provider, reason }, `the provider ${provider} is left out: it ${reason}`);
          const usable = usableOf(exchange, admitted.candidates, routing.fallback_enabled);
          const ordered = ways.order(exchange, usable);
          exchange.candidates = other === undefined ? ordered : ordered.map((each) => named(each, other));
          exchange.ruledOut =
            admitted.ruledOut.length === 0 ? plan.ruledOut : [...plan.ruledOut, ...admitted.ruledOut];
          return usable.length > 0 ? undefined : refusal(exchange, model, plan, admitted);
        };
        return admission instanceof Promise ? admission.then(conclude) : conclude(admission);
      };
      hooks.request.tap((exchange) =>
        exchange.dialect?.listsModels === true
          ? models.answer(exchange, table()).then((answer) => answer ?? routed(exchange))
          : routed(exchange),
      );

      const keys = needs.rotates ? new Keys(coolDowns, log) : undefined;
      hooks.beforeUpstream.tap((exchange, attempt) => {
        const verdict = keys?.beforeUpstream(exchange, attempt);
        if (verdict !== undefined) return verdict;
        if (attempt.candidate.credential.kind !== "client")
          attempt.headers = withoutHeaders(attempt.headers, CREDENTIAL_HEADERS);
        if (attempt.candidate.model !== undefined) rename(exchange, attempt);
        return undefined;
      });
      if (keys !== undefined) hooks.lifecycle.for("attemptEnd").tap(keys.attemptEnd);
      if (!needs.moves && !needs.renames && override === undefined) return;
      hooks.response.tap((reply, exchange) => {
        ways.served(reply, exchange);
        if (reply.attempt?.candidate.model === undefined) return undefined;
        return restore(reply, exchange).catch((cause: unknown) => {
          // The reply is whole all the same, under the provider's name for the model.
          log.warn(
            { err: cause, exchange: exchange.id },
            "the client's name for a model could not be put back",
          );
        });
      });
    });
  },
});

/** The candidate with the model to send, where the model map names none for it. */
function named(candidate: Candidate, model: string): Candidate {
  return candidate.model === undefined ? { ...candidate, model } : candidate;
}

/** What a pipeline's config calls for. What it does not is not tapped. */
interface Needs {
  /** Some provider has several keys. */
  readonly rotates: boolean;
  /** A conversation may be served in more than one place. */
  readonly moves: boolean;
  /** Some model goes out under another name. */
  readonly renames: boolean;
}

function needsOf(routing: RoutingConfig, providers: readonly Provider[], formats: readonly string[]): Needs {
  const rotates = providers.some((each) => each instanceof ConfiguredProvider && each.keys.length > 1);
  const reached = providers.filter(({ answer }) => answer === undefined);
  const isNamed = (target: string) =>
    providers.some(
      (each) => each.name === target || (each instanceof ConfiguredProvider && each.alias === target),
    );
  return {
    rotates,
    moves: rotates || formats.some((format) => reached.filter((each) => speaks(each, format)).length > 1),
    renames: Object.values(routing.model_map).some((target) => !isNamed(target)),
  };
}

/**
 * Without fallback the first provider alone, with all of its keys. What an opaque request touches lives in one place
 * only.
 */
function usableOf(
  { dialect }: Exchange,
  candidates: readonly Candidate[],
  hasFallback: boolean,
): readonly Candidate[] {
  const [first] = candidates;
  if (first === undefined || candidates.length === 1 || (hasFallback && dialect !== undefined))
    return candidates;
  return candidates.filter(({ provider }) => provider === first.provider);
}

function refusal(exchange: Exchange, model: string | undefined, plan: Plan, admission: Admission): ReplyInit {
  const what = `${model === undefined ? "this request" : `the model ${JSON.stringify(model.slice(0, 100))}`}${
    exchange.dialect === undefined ? "" : ` (${exchange.dialect.name})`
  }`;
  const tried = exchange.ruledOut.map(({ provider, reason }) => `${provider} ${reason}`).join("; ");
  const because = tried === "" ? "none is configured" : tried;
  if (plan.choices.length === 0) {
    return exchange.refuse({ code: "TM_NO_PROVIDER", message: `no provider can serve ${what}: ${because}` });
  }
  const code = admission.keyFailures.length > 0 ? "TM_KEY_UNAVAILABLE" : "TM_NO_CREDENTIAL";
  return exchange.refuse({ code, message: `no provider that serves ${what} has a key: ${because}` });
}

const MAX_TOLD = 1_000;
const NOTHING: readonly RuledOut[] = [];

/** What was said once is not said again with each request. Reasons hold names that clients chose, so it is bounded. */
class Told {
  readonly #said = new Set<string>();
  /** Most requests share what their plan ruled out: it is not gone through again. */
  #last: readonly RuledOut[] | undefined;

  newIn(ruledOut: readonly RuledOut[]): readonly RuledOut[] {
    if (ruledOut === this.#last) return NOTHING;
    this.#last = ruledOut;
    return ruledOut.filter(({ provider, reason }) => this.#isNew(`${provider} ${reason}`));
  }
  #isNew(what: string): boolean {
    if (this.#said.has(what) || this.#said.size >= MAX_TOLD) return false;
    this.#said.add(what);
    return true;
  }
}
