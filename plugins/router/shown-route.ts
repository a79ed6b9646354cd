import type { CircuitState, Circuits, ClientCredential, Format } from "@tokenman/plugin-sdk";
import type { CoolDowns } from "./cool-downs.ts";
import { admit } from "./credentials.ts";
import type { RouteTable } from "./route-table.ts";

/** Where requests of one format for a model would go now, as `/api/route` and `tokenman route` show it. */
export interface ShownRoute {
  readonly format: string;
  readonly candidates: readonly ShownCandidate[];
  readonly ruledOut: readonly { readonly provider: string; readonly reason: string }[];
  /** Whether conversations begin with different ones of them, by their weights. */
  readonly spread: boolean;
}

export interface ShownCandidate {
  readonly provider: string;
  /** The name that is sent in the place of the one asked for. */
  readonly model: string | undefined;
  readonly credential: "the client's" | "its own key" | "none";
  /** Which of its keys, where it has several. */
  readonly account: string | undefined;
  readonly reason: string;
  readonly circuit: CircuitState | undefined;
  /** Milliseconds for which the key is left alone. */
  readonly coolDownMs: number | undefined;
}

const CREDENTIALS = { client: "the client's", key: "its own key", none: "none" } as const;
/** Stands for a client's key: it is never sent. */
const ANY: ClientCredential = { kind: "key", header: "", secret: "" };

/** The routes of a client that sends a key of its own, or of one that sends none. */
export async function shownRoutes(
  table: RouteTable,
  formats: readonly Format[],
  asked: { readonly model: string; readonly format: string | undefined; readonly hasKey: boolean },
  health: { readonly circuits: Circuits | undefined; readonly coolDowns: CoolDowns },
): Promise<ShownRoute[]> {
  const states = new Map(health.circuits?.states().map((view) => [view.provider, view.state]));
  const client = {
    credential: asked.hasKey ? ANY : undefined,
    subscription: false,
    request: { target: "/" },
  };
  const wanted = formats.filter(({ name }) => asked.format === undefined || name === asked.format);
  return Promise.all(
    wanted.map(async ({ name: format }) => {
      const plan = table.plan(format, asked.model);
      const { candidates, ruledOut } = await admit(plan, client);
      return {
        format,
        candidates: candidates.map(({ provider, model, credential, account, reason }) => ({
          provider: provider.name,
          model,
          credential: CREDENTIALS[credential.kind],
          account,
          reason,
          circuit: states.get(provider.name),
          coolDownMs:
            credential.kind === "key" && account !== undefined
              ? health.coolDowns.find(provider.name, credential.secret)?.forMs
              : undefined,
        })),
        ruledOut: [...plan.ruledOut, ...ruledOut],
        spread: plan.isSpread,
      };
    }),
  );
}
