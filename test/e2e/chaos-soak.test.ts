import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { it } from "node:test";

/** The short form of `make soak ARGS="--chaos"`, in a process of its own: it measures the heap. */
it("providers that fail in every way lose no request that one of them could serve", {
  timeout: 120_000,
}, async () => {
  const main = join(import.meta.dirname, "../../scripts/soak/main.ts");
  const child = spawn(process.execPath, [main, "--chaos", "--seconds", "12", "--rate", "300", "--json"], {
    stdio: ["ignore", "pipe", "inherit"],
    timeout: 110_000,
    killSignal: "SIGKILL",
  });
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  await once(child, "close");
  const { seed, requests, whole, broken, failed, skipped, goodput, faults } = JSON.parse(output);
  assert.deepEqual(faults, [], `seed ${seed}`);
  assert.equal(whole + broken + failed, requests, "every request ended");
  assert.ok(goodput >= 0.95 && broken > 0 && skipped > 0);
});
