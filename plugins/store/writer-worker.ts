import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import type { Batch, FromWriter, Operation, ToWriter, WriterSettings } from "./messages.ts";
import { RowReceiver } from "./received-rows.ts";
import { wireError } from "./wire-error.ts";
import { Writer } from "./writer.ts";

/** Between two tries to write to a disk that does not take it. */
const RETRY_MS = 1_000;
const TEND_MS = 10_000;
const PRUNE_MS = 10 * 60_000;
/** Between two batches, so that rows and reservations come in between. */
const PRUNE_PAUSE_MS = 50;
/** Somebody waits for those: they are tried, or refused, whatever the disk did before. */
const PROMPT: ReadonlySet<Operation["kind"]> = new Set([
  "allow",
  "fold",
  "leave",
  "settle",
  "used",
  "recall",
  "decided",
  "flush",
]);

const port = parentPort!;
const tell = (message: FromWriter): void => port.postMessage(message);
const writer = new Writer({ ...(workerData as WriterSettings), tell });

let timer: NodeJS.Timeout | undefined;

function commit(): void {
  clearTimeout(timer);
  timer = undefined;
  writer.commit();
  if (writer.waiting > 0) timer = setTimeout(commit, RETRY_MS);
}

const receiver = new RowReceiver();

function take({ rows, operations, bodies }: Batch): boolean {
  if (rows !== undefined) writer.take([receiver.receive(rows, bodies)]);
  let prompt = false;
  for (const text of operations) {
    const operation = JSON.parse(text) as Operation;
    prompt ||= PROMPT.has(operation.kind);
    writer.take([operation]);
  }
  return prompt;
}

function receive(first: ToWriter): void {
  let prompt = false;
  let closing = false;
  for (let message: ToWriter | undefined = first; message !== undefined; message = next()) {
    if (message.kind === "batch") prompt = take(message.batch) || prompt;
    else if (message.kind === "tune") writer.tune(message.tuning);
    else closing = true;
  }
  if (closing) close();
  // Rows were gathered before they came: what is there now is a group.
  else if (prompt || !writer.failing) commit();
  else if (writer.waiting > 0) timer ??= setTimeout(commit, RETRY_MS);
}

function next(): ToWriter | undefined {
  return receiveMessageOnPort(port)?.message as ToWriter | undefined;
}

function close(): void {
  clearTimeout(timer);
  for (const each of [tending, pruning, pause]) clearTimeout(each);
  writer.close();
  tell({ kind: "closed" });
  port.close();
}

let tending: NodeJS.Timeout | undefined;
let pruning: NodeJS.Timeout | undefined;
let pause: NodeJS.Timeout | undefined;

function tend(): void {
  while (writer.tend());
  tending = setTimeout(tend, TEND_MS);
}
function prune(): void {
  if (writer.prune()) {
    pause = setTimeout(prune, PRUNE_PAUSE_MS);
    return;
  }
  pruning = setTimeout(prune, PRUNE_MS);
}

try {
  writer.open();
  tell({ kind: "open" });
  port.on("message", receive);
  // After the answer to `open`: the first request does not wait for it.
  tending = setTimeout(tend, 0);
  pruning = setTimeout(prune, TEND_MS);
} catch (cause) {
  tell({ kind: "open", error: wireError(cause) });
  port.close();
}
