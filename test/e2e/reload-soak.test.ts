import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { it } from "node:test";

/** The short form of `make soak`, in a process of its own: it counts what the garbage collector takes. */
it("reloads under load lose no request, mix no generations, and leave nothing behind", {
  timeout: 90_000,
}, async () => {
  const main = join(import.meta.dirname, "../../scripts/soak/main.ts");
  const child = spawn(process.execPath, [main, "--generations", "30", "--json"], {
    stdio: ["ignore", "pipe", "inherit"],
    timeout: 80_000,
    killSignal: "SIGKILL",
  });
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  await once(child, "close");
  const { traffic, swapped, refused, measured, faults } = JSON.parse(output);
  assert.deepEqual(faults, []);
  assert.deepEqual([swapped, refused], [30, 10]);
  assert.deepEqual(
    measured.map(({ generations }: { generations: number }) => generations),
    [5, 10, 30],
  );
  assert.ok(traffic.requests > 500, `only ${traffic.requests} requests`);
  assert.ok(traffic.left > 0);
});
