import { ERRORS, readAnswer, TokenmanError } from "@tokenman/plugin-sdk";
import { createClient, type Reloaded, reloadShape } from "./client.ts";
import type { Invocation } from "./command.ts";
import { runningInstance } from "./pid-file.ts";
import { type CliSettings, readSettings } from "./settings.ts";

/** `tokenman reload`: 0 where the new generation serves; where it was refused and the old one stays, 78. */
export async function reload({ options, print }: Invocation): Promise<number> {
  const settings = readSettings(options);
  if (runningInstance(settings.server.data_dir) === undefined) {
    throw new TokenmanError("TM_NOT_RUNNING", `no TokenMan runs with ${settings.server.data_dir}`);
  }
  const event = await askToReload(settings);
  if (options["json"] === true) print(JSON.stringify(event));
  else print(outcome(event));
  return event.ok ? 0 : ERRORS.TM_CONFIG_INVALID.exit;
}

/** Asks the running instance to reload, and resolves when it has. Rejects with TM_NOT_RUNNING. */
export async function askToReload(settings: CliSettings): Promise<Reloaded> {
  const client = createClient(settings);
  const reply = await client.ask("/api/reload", { method: "POST", body: "{}" });
  // 422 says that it was refused; it comes with the same body.
  if (!reply.ok && reply.status !== 422) {
    const said = await reply.text();
    throw new TokenmanError("TM_NOT_RUNNING", `the instance answers ${reply.status}: ${said.slice(0, 500)}`);
  }
  return readAnswer(client, reply, reloadShape);
}

export function outcome({ ok, generation, error }: Reloaded): string {
  if (ok) return `reloaded: generation ${generation} serves`;
  return `not reloaded: generation ${generation} still serves\n${error ?? ""}`.trimEnd();
}
