import type { Exchange } from "@tokenman/plugin-sdk";

/** The model that the path names, where the dialect has a route that ends in `:model`; else undefined. */
export function modelInPath({ dialect, request }: Exchange): string | undefined {
  for (const { path } of dialect?.routes ?? []) {
    if (!path.endsWith("/:model")) continue;
    const folder = path.slice(0, -":model".length);
    const name = request.path.startsWith(folder) ? request.path.slice(folder.length) : "";
    if (name === "" || name.includes("/")) continue;
    try {
      return decodeURIComponent(name);
    } catch {
      return name;
    }
  }
  return undefined;
}
