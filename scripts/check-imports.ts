/**
 * The import rule. Plugins, and examples as third parties' plugins, know the SDK and their own dependencies: never each
 * other, never the kernel. The kernel knows the SDK and no plugin. The SDK knows neither: its test kit is handed the host
 * that runs kernels. `web` runs in a browser and talks HTTP. The CLI puts everything together.
 */
import { globSync, readFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { join, posix } from "node:path";

export interface Violation {
  /** Relative to the root. */
  readonly file: string;
  /** From 1. */
  readonly line: number;
  readonly specifier: string;
  readonly reason: string;
}

const SDK = "@tokenman/plugin-sdk";
const CODE = "**/*.{ts,mts,js,mjs}";

/** A room: files that may import each other, with what else they may import. */
interface Room {
  readonly name: string;
  /** Other rooms' folders that may be imported by path. */
  readonly folders: readonly string[];
  readonly sdk: boolean;
  /** Packages beside Node's own modules. */
  readonly packages: ReadonlySet<string>;
}

/** Every import that breaks the rule, types included, in the order of files and lines. */
export function importViolations(root: string): Violation[] {
  const own = dependencies(root, ".");
  const sdkOwn = dependencies(root, "plugin-sdk");
  const room = (file: string): Room | undefined => {
    const [top = "", second = ""] = file.split("/");
    switch (top) {
      case "plugins":
        return { name: `plugins/${second}`, folders: [], sdk: true, packages: own };
      case "examples":
        return {
          name: `examples/${second}`,
          folders: [],
          sdk: true,
          packages: dependencies(root, `examples/${second}`),
        };
      case "kernel":
        return { name: "kernel", folders: [], sdk: true, packages: own };
      case "plugin-sdk":
        return second === "testkit"
          ? { name: "plugin-sdk/testkit", folders: ["plugin-sdk/src"], sdk: false, packages: sdkOwn }
          : { name: "plugin-sdk/src", folders: [], sdk: false, packages: sdkOwn };
      case "web":
        return { name: "web", folders: [], sdk: false, packages: new Set() };
      case "cli":
        return { name: "cli", folders: ["kernel", "plugins"], sdk: true, packages: own };
      default:
        return undefined;
    }
  };
  const files = globSync(
    ["plugins", "examples", "kernel", "plugin-sdk", "web", "cli"].map((top) => `${top}/${CODE}`),
    {
      cwd: root,
      exclude: ["**/node_modules/**", "**/dist/**"],
    },
  );
  return files
    .map((file) => file.replaceAll("\\", "/"))
    .sort()
    .flatMap((file) => {
      const of = room(file);
      if (of === undefined) return [];
      return importsOf(readFileSync(join(root, file), "utf8")).flatMap(({ specifier, line }) => {
        const reason = objection(specifier, file, of);
        return reason === undefined ? [] : [{ file, line, specifier, reason }];
      });
    });
}

export function formatViolation({ file, line, specifier, reason }: Violation): string {
  return `${file}:${line}: imports "${specifier}": ${reason}`;
}

function objection(specifier: string, file: string, room: Room): string | undefined {
  if (specifier.startsWith(".") || specifier.startsWith("/")) {
    const target = posix.join(posix.dirname(file), specifier);
    if (file === "cli/version.ts" && target === "package.json") return undefined;
    const allowed = [room.name, ...room.folders].some((folder) => target.startsWith(`${folder}/`));
    return allowed ? undefined : `${room.name} may not import ${target}`;
  }
  if (isBuiltin(specifier)) {
    return specifier.startsWith("node:") ? undefined : `write "node:${specifier}"`;
  }
  const name = packageOf(specifier);
  if (name === SDK) return room.sdk ? undefined : `${room.name} may not import the SDK by its name`;
  return room.packages.has(name) ? undefined : `"${name}" is not among the dependencies of ${room.name}`;
}

function packageOf(specifier: string): string {
  return specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");
}

function dependencies(root: string, folder: string): ReadonlySet<string> {
  try {
    const manifest = JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8")) as {
      readonly dependencies?: Readonly<Record<string, string>>;
    };
    return new Set(Object.keys(manifest.dependencies ?? {}));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return new Set();
    throw error;
  }
}

/** `import … from "x"`, `export … from "x"`, `import "x"`, `import("x")` (also in types), `require("x")`. */
const IMPORT =
  /(?:^|[;}\n])\s*(?:import|export)\b[^"'`;]*?\bfrom\s*["'](?<from>[^"'\n]+)["']|(?:^|[;}\n])\s*import\s*["'](?<bare>[^"'\n]+)["']|\b(?:import|require)\s*\(\s*["'](?<call>[^"'\n]+)["']/g;

function importsOf(source: string): { readonly specifier: string; readonly line: number }[] {
  const code = withoutComments(source);
  return [...code.matchAll(IMPORT)].map((match) => {
    const { from, bare, call } = match.groups ?? {};
    const specifier = from ?? bare ?? call ?? "";
    const at = match.index + match[0].lastIndexOf(specifier);
    return { specifier, line: code.slice(0, at).split("\n").length };
  });
}

/** Comments blanked out, lines kept. Strings are passed over, so that "//" in one is not taken for a comment. */
function withoutComments(source: string): string {
  const TOKEN = /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`|\/\/[^\n]*|\/\*[\s\S]*?\*\//g;
  return source.replace(TOKEN, (token) => (token.startsWith("/") ? token.replace(/[^\n]/g, " ") : token));
}
