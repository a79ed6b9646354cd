/** The bench's end of the load generator: sends it one job at a time. */
import { join } from "node:path";
import { type Child, forkChild } from "./children.ts";
import type { LoadJob, LoadResult } from "./job.ts";

export interface Generator {
  /**
   * Runs a job to its end.
   * @throws Error where the generator itself fails; what the subject does wrong is counted in the result
   */
  run(job: LoadJob): Promise<LoadResult>;
  stop(): Promise<void>;
}

type Answer = { result: LoadResult } | { error: string };

export function startGenerator(): Generator {
  const child: Child = forkChild(join(import.meta.dirname, "load.ts"));
  return {
    run: (job) =>
      new Promise((resolve, reject) => {
        const onExit = (): void => reject(new Error(`the load generator ended: ${child.output()}`));
        child.process.once("exit", onExit);
        child.process.once("message", (message) => {
          child.process.off("exit", onExit);
          const answer = message as Answer;
          if ("result" in answer) resolve(answer.result);
          else reject(new Error(`the load generator: ${answer.error}`));
        });
        child.process.send(job);
      }),
    stop: () => child.stop(),
  };
}
