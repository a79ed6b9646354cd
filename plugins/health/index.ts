import {
  definePlugin,
  type HealthCheck,
  type HealthResult,
  type HostInfo,
  type HostStatus,
  type Route,
} from "@tokenman/plugin-sdk";

/** How long one check may take before it counts as failed. */
const CHECK_MS = 2_000;

/** Liveness and readiness on both ports, and what the command line asks a running instance. */
export default definePlugin({
  name: "health",
  version: "0.1.0",
  apiVersion: 1,
  description: "Answers /health and /health/ready; status and reload for the command line",
  setup(ctx) {
    const { host } = ctx;
    const add = (route: Route) => ctx.contribute("route", route);
    for (const method of ["GET", "HEAD"] as const) {
      add({
        port: "both",
        method,
        path: "/health",
        public: true,
        handle: ({ json }) => json(200, { status: "ok" }),
      });
      add({
        port: "both",
        method,
        path: "/health/ready",
        public: true,
        async handle({ json }) {
          const report = await readiness(host);
          json(report.status === "ok" ? 200 : 503, report);
        },
      });
    }
    add({
      port: "dashboard",
      method: "GET",
      path: "/api/status",
      handle: ({ json }) => json(200, { version: host.version, bootId: host.bootId, ...host.status() }),
    });
    add({
      port: "dashboard",
      method: "GET",
      path: "/api/plugins",
      handle: ({ json }) => json(200, { generation: host.generation, plugins: host.status().plugins }),
    });
    add({
      port: "dashboard",
      method: "POST",
      path: "/api/reload",
      async handle({ json }) {
        const event = await host.reload("asked for over HTTP");
        json(event.ok ? 200 : 422, event);
      },
    });
  },
});

/** The body of `/health/ready`. */
interface Readiness {
  readonly status: "ok" | "draining" | "failing";
  readonly version: string;
  readonly bootId: string;
  readonly generation: number;
  /**
   * Null before the first. One that failed leaves the status as it is: the generation before it serves. Everybody may
   * read this, so `error` is no more than codes and places; `/api/status` shows the whole.
   */
  readonly lastReload: LastReload | null;
  readonly checks: readonly CheckReport[];
}

interface LastReload {
  readonly ok: boolean;
  readonly generation: number;
  readonly at: number;
  readonly error?: string;
}

type CheckReport = HealthResult & { readonly name: string; readonly required: boolean };

async function readiness(host: HostInfo): Promise<Readiness> {
  const { generation, lastReload, draining } = host.status();
  const checks = await Promise.all(host.registry.all("health").map(run));
  const failing = checks.some(({ ok, required }) => required && !ok);
  return {
    status: draining ? "draining" : failing ? "failing" : "ok",
    version: host.version,
    bootId: host.bootId,
    generation,
    lastReload: lastReload === undefined ? null : shown(lastReload),
    checks,
  };
}

function shown({ ok, generation, at, brief }: NonNullable<HostStatus["lastReload"]>): LastReload {
  return { ok, generation, at, ...(!ok && { error: brief ?? "TM_INTERNAL" }) };
}

/** A check that throws, or does not end, has failed; it must not take the others' answers with it. */
async function run(check: HealthCheck): Promise<CheckReport> {
  const { name, required } = check;
  const late = Promise.withResolvers<HealthResult>();
  const timer = setTimeout(
    () => late.resolve({ ok: false, detail: `no answer within ${CHECK_MS} ms` }),
    CHECK_MS,
  );
  try {
    const { ok, detail } = await Promise.race([(async () => check.check())(), late.promise]);
    return { name, required, ok, ...(detail !== undefined && { detail }) };
  } catch (error) {
    return { name, required, ok: false, detail: error instanceof Error ? error.message : String(error) };
  } finally {
    clearTimeout(timer);
  }
}
