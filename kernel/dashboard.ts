import type { IncomingMessage, ServerResponse } from "node:http";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { Door } from "./door.ts";
import type { Serving } from "./serving.ts";

/**
 * Serves the dashboard port: nothing but the routes that plugins contributed, behind the access rules. `expects` is true
 * for a request that waits for 100 Continue.
 */
export function handleDashboard(
  door: Door,
  serving: Serving,
  message: IncomingMessage,
  response: ServerResponse,
  expects: boolean,
): void {
  try {
    const { place, route } = door.admit(message, serving);
    if (route === undefined) throw new TokenmanError("TM_NOT_FOUND", "There is nothing at this path.");
    if (route === "method") throw door.notAllowed(response, message.method ?? "GET", place.path, serving);
    door.serve(route, place, serving, message, response, expects);
  } catch (cause) {
    door.refuse(message, response, serving, cause);
  }
}
