import type { Exchange } from "./exchange.ts";
import { type ServiceToken, service } from "./service.ts";

/**
 * Sends some requests to another model than the client asked for. Whoever routes asks it, and sees to it that the client
 * finds its own name for the model in the reply. Provided by at most one plugin.
 */
export interface ModelOverride {
  /** The model to route by, and to send; undefined: the one asked for. Synchronous, cheap, and the same for one exchange each time. */
  modelFor(exchange: Exchange): string | undefined;
}
export const ModelOverride: ServiceToken<ModelOverride> = service<ModelOverride>("ModelOverride");
