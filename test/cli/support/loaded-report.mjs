/** Preloaded into a process: tells whoever connects to LOADED_SOCKET what has been loaded and which threads were started. */
import { registerHooks } from "node:module";
import { createServer } from "node:net";
import { isMainThread } from "node:worker_threads";

if (isMainThread && process.env.LOADED_SOCKET !== undefined) {
  const files = [];
  const threads = [];
  registerHooks({
    load(url, context, next) {
      files.push(url);
      return next(url, context);
    },
  });
  process.on("worker", (worker) => threads.push(worker.threadName));
  createServer((socket) => socket.end(JSON.stringify({ files, threads, builtins: process.moduleLoadList })))
    .listen(process.env.LOADED_SOCKET)
    .unref();
}
