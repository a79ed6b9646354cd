import { definePlugin, type Exchange, type ReplyInit, withoutHeaders } from "@tokenman/plugin-sdk";
import { CREDENTIAL_HEADERS } from "./carriers.ts";
import { ConfiguredProvider } from "./configured-provider.ts";
import { type Admission, admit } from "./credentials.ts";
import { modelInPath } from "./model-path.ts";
import { type Plan, RouteTable } from "./route-table.ts";
import { BUILT_IN, type ProvidersConfig, providersSchema, routingSchema } from "./schema.ts";

/** Decides which providers may serve a request, and with whose credential each would be asked. */
export default definePlugin({
  name: "router",
  version: "0.1.0",
  apiVersion: 1,
  description:
    "Chooses providers by model map, model list, format and default; keeps credentials where they belong",
  section: "routing",
  configSchema: routingSchema,
  extraSections: { providers: providersSchema },
  stage: "route",
  onError: "closed",
  setup(ctx) {
    const { registry } = ctx.host;
    const configured = ctx.section("providers") as ProvidersConfig;
    const formats = () => registry.all("format");
    const disabled = new Set<string>();
    const builtIn = BUILT_IN.filter((name) => !Object.hasOwn(configured, name));
    for (const [name, config] of Object.entries(configured)) {
      if (config.enabled) {
        ctx.contribute("provider", new ConfiguredProvider(name, config, true, formats, ctx.log));
      } else disabled.add(name);
    }
    const defaults = providersSchema.parse(Object.fromEntries(builtIn.map((name) => [name, {}])));
    for (const name of builtIn) {
      ctx.contribute("provider", new ConfiguredProvider(name, defaults[name]!, false, formats, ctx.log));
    }
    ctx.pipeline((routing, hooks) => {
      let made: RouteTable | undefined;
      const table = () => {
        made ??= new RouteTable({
          routing,
          providers: registry.all("provider"),
          formats: formats(),
          disabled,
        });
        return made;
      };
      // A route to what does not exist is found before the generation serves.
      hooks.lifecycle.for("ready").tap(() => void table());
      hooks.request.tap((exchange) => {
        const model = exchange.description?.model ?? modelInPath(exchange);
        const plan = table().plan(exchange.format?.name, model);
        const admission = admit(plan, exchange);
        const conclude = (admitted: Admission) => {
          for (const failure of admitted.keyFailures)
            ctx.log.error({ err: failure }, "a key_ref could not be resolved");
          return route(exchange, model, plan, admitted, routing.fallback_enabled);
        };
        return admission instanceof Promise ? admission.then(conclude) : conclude(admission);
      });
      hooks.beforeUpstream.tap((exchange, attempt) => {
        const { model, credential } = attempt.candidate;
        if (credential.kind !== "client")
          attempt.headers = withoutHeaders(attempt.headers, CREDENTIAL_HEADERS);
        const pointer = exchange.description?.modelPointer;
        if (model === undefined || pointer === undefined) return;
        attempt.patch([{ op: "replace", pointer, value: model }]);
      });
    });
  },
});

/** Writes the candidates, or refuses where there is none. What an opaque request touches lives in one place only. */
function route(
  exchange: Exchange,
  model: string | undefined,
  plan: Plan,
  admission: Admission,
  hasFallback: boolean,
): ReplyInit | undefined {
  const { candidates } = admission;
  const isSingle = !hasFallback || exchange.dialect === undefined;
  exchange.candidates = isSingle ? candidates.slice(0, 1) : candidates;
  exchange.ruledOut =
    admission.ruledOut.length === 0 ? plan.ruledOut : [...plan.ruledOut, ...admission.ruledOut];
  return candidates.length > 0 ? undefined : refusal(exchange, model, plan, admission);
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
