import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

/**
 * What tells the process `pid` from every other that has had or will have its number: when it was started, in a form
 * to compare for equality. Undefined where there is no such process, or nothing can be learnt about it.
 */
export function processIdentity(pid: number): string | undefined {
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined;
  return process.platform === "linux" ? linuxIdentity(pid) : psIdentity(pid);
}

function linuxIdentity(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // proc(5): the second field is the name in parentheses, which may itself hold blanks and parentheses; the state is
    // the third, the start time, in clock ticks since the machine's start, the 22nd.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const [state] = fields;
    const ticks = fields[19];
    if (state === "Z" || state === "X" || ticks === undefined) return undefined;
    return `${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()}/${ticks}`;
  } catch {
    return undefined;
  }
}

/** Elsewhere `ps` tells the start time, to the second. */
function psIdentity(pid: number): string | undefined {
  try {
    const out = execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
      env: { ...process.env, LC_ALL: "C", TZ: "UTC" },
    });
    return out.trim() === "" ? undefined : out.trim();
  } catch {
    return undefined;
  }
}
