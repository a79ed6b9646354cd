import { readFileSync } from "node:fs";

/** File descriptors left for everything that is not a connection. */
const SPARE_DESCRIPTORS = 128;
const FEWEST_CONNECTIONS = 16;
/** Where the system does not tell: below the usual limit of every system Node runs on. */
const UNKNOWN_LIMIT = 4_096;

/** How many exchanges the process's file descriptors allow at once: each takes one for the client, one for the provider. */
export function connectionBudget(): number {
  return Math.max(FEWEST_CONNECTIONS, Math.floor((descriptorLimit() - SPARE_DESCRIPTORS) / 2));
}

function descriptorLimit(): number {
  try {
    const line = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync("/proc/self/limits", "utf8"));
    if (line === null) return UNKNOWN_LIMIT;
    return line[1] === "unlimited" ? 65_536 : Number(line[1]);
  } catch {
    return UNKNOWN_LIMIT;
  }
}
