/** `make soak`: see README.md. */
import { parseArgs } from "node:util";
import { chaos } from "./chaos.ts";
import { type SoakReport, soak } from "./soak.ts";

const { values } = parseArgs({
  options: {
    chaos: { type: "boolean", default: false },
    seconds: { type: "string", default: "300" },
    rate: { type: "string", default: "200" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
    generations: { type: "string", default: "600" },
    concurrency: { type: "string", default: "32" },
    json: { type: "boolean", default: false },
  },
});
const progress = values.json ? () => {} : (line: string) => console.log(line);
const faults = values.chaos ? await runChaos() : await runReloads();
if (!values.json) {
  for (const fault of faults) console.log(`FAULT ${fault}`);
  if (faults.length === 0) console.log("all as it should be");
}
process.exitCode = faults.length === 0 ? 0 : 1;

/** Requests in front of failing providers. */
async function runChaos(): Promise<readonly string[]> {
  const options = { seconds: Number(values.seconds), rate: Number(values.rate), seed: Number(values.seed) };
  progress(`seed ${options.seed}`);
  const report = await chaos({ ...options, progress });
  const faults = [...report.faults];
  const [first = 0, last = 0] = report.heapBytes;
  // A short run is over before the caches and the compiled code are what they will be.
  if (last / first > (options.seconds >= 120 ? 1.1 : 1.3))
    faults.push(`the heap grew from ${first} to ${last} bytes`);
  if (report.goodput < 0.95) faults.push(`goodput was ${(report.goodput * 100).toFixed(2)} %`);
  if (report.requests < options.seconds * options.rate * 0.9)
    faults.push(`only ${report.requests} requests could be sent`);
  if (values.json) console.log(JSON.stringify({ seed: options.seed, ...report, faults }));
  else {
    const { requests, whole, broken, failed, goodput, sent, skipped, longestMs } = report;
    console.log(
      `${requests} requests: ${whole} whole, ${broken} broken after the first byte, ${failed} failed; goodput ${(goodput * 100).toFixed(2)} %; ` +
        `${sent} attempts sent, ${skipped} spared by the breaker; the longest took ${(longestMs / 1_000).toFixed(1)} s`,
    );
  }
  return faults;
}

/** Requests while it is reloaded again and again. */
async function runReloads(): Promise<readonly string[]> {
  const generations = Number(values.generations);
  // The first measurement is the one that the last is compared with: caches are full by then.
  const measureAt = [...new Set([Math.ceil(generations / 6), Math.ceil(generations / 3), generations])];
  const began = performance.now();
  const report = await soak({ generations, concurrency: Number(values.concurrency), measureAt, progress });
  const faults = faultsOf(report, generations);
  if (values.json) console.log(JSON.stringify({ ...report, faults }));
  else {
    const { traffic, swapped, refused } = report;
    const seconds = ((performance.now() - began) / 1000).toFixed(0);
    console.log(
      `${traffic.requests} requests (${traffic.left} left early), ${swapped} generations swapped in, ${refused} refused, in ${seconds} s`,
    );
  }
  return faults;
}

/** How many old generations may still be in memory: the last ones, which exchanges or a timer hold for a moment. */
function faultsOf({ traffic, measured, problems, swapped }: SoakReport, generations: number): string[] {
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
