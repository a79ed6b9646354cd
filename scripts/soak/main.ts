/** `make soak`: see README.md. */
import { parseArgs } from "node:util";
import { type SoakReport, soak } from "./soak.ts";

const { values } = parseArgs({
  options: {
    generations: { type: "string", default: "600" },
    concurrency: { type: "string", default: "32" },
    json: { type: "boolean", default: false },
  },
});
const generations = Number(values.generations);
// The first measurement is the one that the last is compared with: caches are full by then.
const measureAt = [...new Set([Math.ceil(generations / 6), Math.ceil(generations / 3), generations])];
const began = performance.now();
const report = await soak({
  generations,
  concurrency: Number(values.concurrency),
  measureAt,
  progress: values.json ? () => {} : (line) => console.log(line),
});
const faults = faultsOf(report);
if (values.json) console.log(JSON.stringify({ ...report, faults }));
else {
  const { traffic, swapped, refused } = report;
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  console.log(
    `${traffic.requests} requests (${traffic.left} left early), ${swapped} generations swapped in, ${refused} refused, in ${seconds} s`,
  );
  for (const fault of faults) console.log(`FAULT ${fault}`);
  if (faults.length === 0) console.log("all as it should be");
}
process.exitCode = faults.length === 0 ? 0 : 1;

/** How many old generations may still be in memory: the last ones, which exchanges or a timer hold for a moment. */
function faultsOf({ traffic, measured, problems, swapped }: SoakReport): string[] {
  const faults = [...traffic.failures.map((failure) => `request ${failure}`), ...problems];
  if (swapped !== generations) faults.push(`${swapped} of ${generations} generations were swapped in`);
  for (const { generations: count, collected } of measured) {
    if (collected < Math.min(count - 2, count * 0.975))
      faults.push(`only ${collected} of ${count} old generations were collected`);
  }
  const first = measured[0]!;
  const last = measured.at(-1)!;
  const growth = last.heapBytes / first.heapBytes;
  // A short run is over before the caches and the compiled code are what they will be.
  if (growth > (generations >= 300 ? 1.1 : 1.3))
    faults.push(
      `the heap grew by ${((growth - 1) * 100).toFixed(1)} % from ${first.generations} to ${last.generations}`,
    );
  return faults;
}
