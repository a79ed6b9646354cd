import { DecisionMemory, type DecisionShelf } from "@tokenman/plugin-sdk";
import type { WriterThread } from "./writer-thread.ts";

/** The longest that a request waits to learn whether something was decided; then it was not. */
const FIND_MS = 1_000;

/** Decisions in memory, with the ledger's database behind them; what was last used is loaded beside the first requests. */
export function storedDecisions(writer: WriterThread): DecisionMemory {
  // A database that cannot be read has nothing; the writer has said so in the log.
  const loading = writer
    .recall()
    .then(({ rows, isAll }) => {
      for (const [book, key, value, at] of rows) memory.load(book, key, value, at);
      if (isAll) memory.loadedAll();
    })
    .catch(() => undefined);
  const shelf: DecisionShelf = {
    async find(book, key) {
      const limit = Promise.withResolvers<undefined>();
      const timer = setTimeout(limit.resolve, FIND_MS, undefined);
      const asked = loading.then(() => memory.book(book).get(key) ?? writer.findDecision(book, key));
      try {
        return await Promise.race([asked.catch(() => undefined), limit.promise]);
      } finally {
        clearTimeout(timer);
      }
    },
    put: (book, key, value, at) => writer.decide([book, key, value, at]),
    flush: () => writer.flush().catch(() => undefined),
  };
  const memory = new DecisionMemory(shelf);
  return memory;
}
