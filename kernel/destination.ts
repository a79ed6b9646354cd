import { headerValue, type RawHeaders, TokenmanError } from "@tokenman/plugin-sdk";
import { isProjectName } from "./config/index.ts";

/** Comes before a project's name. */
const PREFIX = "/p/";

/** Where a request is meant to go: its project, and its target without the project's prefix. */
export interface Destination {
  readonly project: string | undefined;
  readonly target: string;
  /** Path alone, as received. */
  readonly path: string;
}

/** Reads `/p/NAME` off a target. Throws TM_BAD_REQUEST for a name that cannot be one, and for what is no target. */
export function destination(url: string, header: string | undefined): Destination {
  refuseFragment(url);
  const place = placeOf(url, header);
  if (!place.path.startsWith("/"))
    throw new TokenmanError("TM_BAD_REQUEST", "The request target is neither a path nor a URL.");
  if (place.project !== undefined && !isProjectName(place.project)) {
    throw new TokenmanError(
      "TM_BAD_REQUEST",
      "A project's name is 1 to 64 letters, digits, dots, dashes or underscores.",
    );
  }
  return place;
}

/** The same of whatever was sent: nothing is checked. A header's project goes before the path's. */
export function placeOf(url: string, header?: string): Destination {
  const target = originForm(url);
  if (!target.startsWith(PREFIX)) return { project: header, target, path: pathOf(target) };
  const path = pathOf(target);
  const slash = path.indexOf("/", PREFIX.length);
  const name = path.slice(PREFIX.length, slash < 0 ? undefined : slash);
  const rest = target.slice(PREFIX.length + name.length);
  const own = slash < 0 ? `/${rest}` : rest;
  return { project: header ?? name, target: own, path: pathOf(own) };
}

/** A place on a port that knows no projects. Throws TM_BAD_REQUEST for a target with a fragment. */
export function plainPlace(url: string): Destination {
  refuseFragment(url);
  const target = originForm(url);
  return { project: undefined, target, path: pathOf(target) };
}

/** A request target in absolute form (RFC 9112 §3.2.2) names this server; its path and query count. */
function originForm(url: string): string {
  if (url.startsWith("/")) return url;
  const rest = /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*(.*)$/i.exec(url)?.[1];
  if (rest === undefined) return url;
  return rest.startsWith("/") ? rest : `/${rest}`;
}

/**
 * A target has no fragment (RFC 9112 §3.2). Servers that cut one off all the same would read a path that nobody here has
 * recognised.
 */
function refuseFragment(url: string): void {
  if (url.includes("#"))
    throw new TokenmanError("TM_BAD_REQUEST", "The request target has a fragment: a # is written %23 there.");
}

/** A fragment is none of it, so that the refusal of one has the shape of the path's vendor. */
function pathOf(target: string): string {
  const end = target.search(/[?#]/);
  return end < 0 ? target : target.slice(0, end);
}

/** A header of a request that the kernel itself reads. */
export function tokenmanHeader(headers: RawHeaders, name: string): string | undefined {
  const value = headerValue(headers, name)?.trim();
  return value === "" ? undefined : value;
}
