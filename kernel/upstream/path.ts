import { TokenmanError } from "@tokenman/plugin-sdk";

/**
 * The provider's base before the path to send, with the query of the client's target. A base that ends in `/v1` takes
 * the place of the path's own. Throws TM_BAD_REQUEST for a path that would leave the folder of the base.
 */
export function joinPath(prefix: string, target: string, sentPath: string): string {
  const query = target.indexOf("?");
  const path = query < 0 ? sentPath : sentPath + target.slice(query);
  if (prefix === "") return path;
  if (DOTS.test(sentPath))
    throw new TokenmanError(
      "TM_BAD_REQUEST",
      "the path has a dot segment, and leads out of the provider's base",
    );
  return prefix.endsWith("/v1") && path.startsWith("/v1/") ? prefix + path.slice(3) : prefix + path;
}
/** A "." or ".." between slashes, in any of the spellings that servers read as one; parameters may follow it. */
const DOTS = /(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:[/\\;]|%2f|%5c|%3b|$)/i;
