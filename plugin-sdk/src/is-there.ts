import { lstatSync } from "node:fs";

/**
 * Whether something is at a path before it is made, so that it is not removed as one's own: a link that leads nowhere is
 * there, too, and so may be what cannot be looked at.
 */
export function isThere(file: string): boolean {
  try {
    return lstatSync(file, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return true;
  }
}
