import { mkdir, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import type { Plugin } from "esbuild";

/** Gives a file the `require` that CommonJS packages in it call. It goes again where none does. */
export const BANNER = 'const require = process.getBuiltinModule("module").createRequire(import.meta.url);';

const BUILTIN_IMPORT =
  /^import(?:\s+([\w$]+)\s*,?)?\s*(?:\*\s*as\s+([\w$]+)|\{([^}]*)\})?\s*from\s*"(node:[\w/]+)";/gm;

/**
 * Writes what was bundled so that it takes little memory, without a line moving to another place.
 *
 * Node's own modules are asked for in place of being imported. Where an ES module imports one, Node reads every property of
 * it, and some are getters that load what they stand for: `WebSocket` of `node:http` is Node's own copy of undici, with
 * fetch, HTTP/2 and the web's streams, 16 MB and 30 ms for a program that uses none of it.
 *
 * And V8 keeps the source of what is loaded, at two bytes for each character where a single one is not Latin-1.
 */
export function output(): Plugin {
  return {
    name: "output",
    setup({ initialOptions, onEnd }) {
      initialOptions.write = false;
      onEnd(async ({ outputFiles = [] }) => {
        for (const { path, text, contents } of outputFiles) {
          await mkdir(dirname(path), { recursive: true });
          await writeFile(path, path.endsWith(".mjs") ? inAscii(withoutImports(text, path)) : contents);
        }
      });
    },
  };
}

function withoutImports(code: string, path: string): string {
  const rewritten = code.replace(BUILTIN_IMPORT, (_text, whole, namespace, names, name) => {
    const builtin = `process.getBuiltinModule("${name}")`;
    const taken = [whole, namespace].filter((named) => named !== undefined);
    if (names !== undefined) taken.push(`{${names.replace(/ as /g, ": ")}}`);
    return `const ${taken.map((named) => `${named} = ${builtin}`).join(", ")};`;
  });
  const left = /^(?:import|export)\b[^;]*"node:[\w/]+";/m.exec(rewritten);
  if (left !== null) throw new Error(`${path} still has ${left[0]}`);
  const body = rewritten.startsWith(BANNER) ? rewritten.slice(BANNER.length) : rewritten;
  return /\brequire\b/.test(body) ? rewritten : body;
}

/** An escape is the character itself in strings, templates and patterns; elsewhere such characters are in comments only. */
function inAscii(code: string): string {
  return code.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
