import http from "node:http";
import { requestBody } from "./plan.ts";
import type { Run } from "./run.ts";

/** What a client came to see. */
export interface Seen {
  readonly status: number | undefined;
  readonly provider: string | undefined;
  readonly requestId: string | undefined;
  readonly tags: readonly string[];
  readonly body: string;
  /** The reply ended as HTTP says; otherwise the connection broke. */
  readonly whole: boolean;
}

/** Sends a run's request and reads what comes, until the end, a break, or until the plan makes it leave. */
export function ask(url: string, run: Run): Promise<Seen> {
  const { plan } = run;
  return new Promise((resolve) => {
    const request = http.request(`${url}/v1/test`, {
      method: "POST",
      agent: false,
      headers: {
        "X-Case": String(plan.number),
        "X-Tokenman-Project": plan.policy === "none" ? "none" : "default",
      },
    });
    let seen: Seen = {
      status: undefined,
      provider: undefined,
      requestId: undefined,
      tags: [],
      body: "",
      whole: false,
    };
    run.leave = () => request.destroy();
    let timer: NodeJS.Timeout | undefined;
    // Counted from when the request is out: what never arrived is no exchange.
    request.on("finish", () => {
      if (plan.leavesAfterMs !== undefined) timer = setTimeout(run.leave, plan.leavesAfterMs);
    });
    request.on("error", () => {});
    request.on("close", () => {
      clearTimeout(timer);
      resolve(seen);
    });
    request.on("response", (response) => {
      const header = (name: string) => response.headers[name] as string | undefined;
      const provider = header("x-tokenman-provider");
      const tags = response.rawHeaders.filter((_, index) => response.rawHeaders[index - 1] === "X-Tag");
      const { statusCode: status } = response;
      seen = { ...seen, status, provider, requestId: header("x-tokenman-request-id"), tags };
      const stalls = provider !== undefined && plan.providers[Number(provider.slice(1))] === "stall";
      response.on("error", () => {});
      response.on("data", (chunk: Buffer) => {
        seen = { ...seen, body: seen.body + String(chunk) };
        if (stalls) run.leave();
      });
      response.on("end", () => {
        seen = { ...seen, whole: response.complete };
      });
    });
    request.end(requestBody("t", "-"));
  });
}
