import type { IncomingMessage, ServerResponse } from "node:http";
import { type Logger, TokenmanError } from "@tokenman/plugin-sdk";
import { checkHead, hasToken } from "./access.ts";
import { sendError, serveRoute } from "./route-table.ts";
import type { Serving } from "./serving.ts";

export interface DashboardHost {
  readonly log: Logger;
  serving(): Serving;
}

/**
 * Serves the dashboard port: nothing but the routes that plugins contributed, behind the access rules. `expects` is true
 * for a request that waits for 100 Continue.
 */
export function handleDashboard(
  host: DashboardHost,
  message: IncomingMessage,
  response: ServerResponse,
  expects: boolean,
): void {
  const serving = host.serving();
  const method = message.method ?? "GET";
  const path = (message.url ?? "/").split("?", 1)[0]!;
  try {
    checkHead(message.rawHeaders, serving.access, "own");
    const match = serving.dashboardRoutes.match(method, path);
    const isPublic = typeof match === "object" && match.route.public === true;
    const { token } = serving.access;
    if (
      serving.demandToken.dashboard &&
      !isPublic &&
      token !== undefined &&
      !hasToken(message.rawHeaders, token, [])
    ) {
      response.setHeader("WWW-Authenticate", 'Bearer realm="TokenMan"');
      throw new TokenmanError("TM_UNAUTHORIZED", "Send TokenMan's own token: Authorization: Bearer TOKEN.");
    }
    if (match === undefined) throw new TokenmanError("TM_NOT_FOUND", "There is nothing at this path.");
    if (match === "method") {
      response.setHeader("Allow", serving.dashboardRoutes.allowed(path));
      throw new TokenmanError("TM_METHOD_NOT_ALLOWED", `This path does not take ${method}.`);
    }
    if (expects) response.writeContinue();
    serving.generation.lease();
    response.once("close", () => serving.generation.release());
    void serveRoute(match, message, response, (cause) =>
      host.log.error({ err: cause, path }, "a route failed"),
    );
  } catch (cause) {
    if (cause instanceof TokenmanError) sendError(response, cause);
    else {
      host.log.error({ err: cause, path }, "the dashboard port failed");
      sendError(
        response,
        new TokenmanError("TM_INTERNAL", "This request failed inside TokenMan; the log says why."),
      );
    }
  }
}
