import type { z } from "zod";
import type { CommandContext } from "./command.ts";
import { TokenmanError } from "./errors.ts";

/** Who was asked, and by which TokenMan. */
export type Asked = Pick<CommandContext, "dashboardUrl"> & {
  readonly host: Pick<CommandContext["host"], "version">;
};

/**
 * The JSON of a reply to {@link CommandContext.fetch}, as it is, where it has what `shape` names; it may have more.
 * Whatever listens on the port may have answered: rejects with TM_NOT_RUNNING where that is no TokenMan, or one of another
 * version. A shape transforms nothing.
 */
export async function readAnswer<S extends z.ZodType>(
  asked: Asked,
  reply: Response,
  shape: S,
): Promise<z.output<S>> {
  let answer: unknown;
  try {
    answer = JSON.parse(await reply.text());
  } catch (cause) {
    throw notTokenman(asked, "its answer is no JSON", cause);
  }
  const { error } = shape.safeParse(answer);
  // What a later version adds is no reason not to understand the rest.
  const wrong = error?.issues.find(({ code }) => code !== "unrecognized_keys");
  if (wrong !== undefined) {
    const at = wrong.path.length === 0 ? "" : `${wrong.path.join(".")}: `;
    throw notTokenman(asked, `its answer is another (${at}${wrong.message})`, error);
  }
  return answer as z.output<S>;
}

/** The error for an answer that this version of TokenMan does not give; `why` tells what is wrong with it. */
export function notTokenman({ dashboardUrl, host }: Asked, why: string, cause?: unknown): TokenmanError {
  return new TokenmanError(
    "TM_NOT_RUNNING",
    `what answers at ${dashboardUrl} is no TokenMan ${host.version}: ${why}`,
    { cause },
  );
}
