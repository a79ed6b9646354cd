import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { type Place, TokenmanError, TokenmanErrors } from "@tokenman/plugin-sdk";
import type { Plugin as EsbuildPlugin, Message } from "esbuild";
import { codeFrame } from "../config/frame.ts";
import { requireSafe } from "./path.ts";

/** The module that the host supplies; whatever else a plugin imports comes with it. */
export const SDK_MODULE = "@tokenman/plugin-sdk";

export interface Compiled {
  /** One CommonJS module with its source map inline. */
  readonly code: string;
  /**
   * SHA-256 of all files it was made from, by absolute path, the `package.json` files that steered the resolving
   * included. Of the very bytes that were compiled: a file saved meanwhile does not match.
   */
  readonly inputs: ReadonlyMap<string, string>;
  readonly esbuild: string;
}

/** Compilations under way in this process, of whichever loader: they share esbuild's child process. */
let compiling = 0;

/**
 * Bundles a plugin's source with its dependencies. esbuild is imported here, at the first plugin that needs it.
 * Rejects with TokenmanErrors of TM_PLUGIN_COMPILE, one for each fault, with its place and code frame.
 */
export async function compile(file: string): Promise<Compiled> {
  const esbuild = await import("esbuild").catch((cause: unknown) => {
    const message = `${file} has to be compiled, and esbuild, which does it, is not installed`;
    throw new TokenmanErrors([new TokenmanError("TM_PLUGIN_COMPILE", message, { cause, place: { file } })]);
  });
  const folder = dirname(file);
  const inputs = new Map<string, string>();
  compiling++;
  try {
    const result = await esbuild.build({
      entryPoints: [file],
      absWorkingDir: folder,
      // Not written. It gives the source map's paths their base: the folder of the plugin.
      outfile: join(folder, `${basename(file)}.cjs`),
      write: false,
      bundle: true,
      format: "cjs",
      platform: "node",
      target: `node${process.versions.node.split(".")[0]}`,
      external: [SDK_MODULE, "*.node"],
      sourcemap: "inline",
      sourcesContent: false,
      charset: "utf8",
      logLevel: "silent",
      // A tsconfig.json somewhere above must not change what the code means.
      tsconfigRaw: { compilerOptions: { useDefineForClassFields: true, verbatimModuleSyntax: false } },
      // A real `import()` would load an ES module, which is never collected.
      supported: { "dynamic-import": false },
      define: {
        "import.meta.url": "__moduleUrl",
        "import.meta.filename": "__filename",
        "import.meta.dirname": "__dirname",
      },
      plugins: [reader(inputs)],
      banner: { js: `const __moduleUrl = require("node:url").pathToFileURL(__filename).href;` },
    });
    await addManifests(inputs);
    return { code: result.outputFiles[0]!.text, inputs, esbuild: esbuild.version };
  } catch (cause) {
    const messages = (cause as { errors?: readonly Message[] }).errors;
    if (messages === undefined) {
      const message = cause instanceof Error ? cause.message : String(cause);
      throw new TokenmanErrors([new TokenmanError("TM_PLUGIN_COMPILE", message, { cause, place: { file } })]);
    }
    throw new TokenmanErrors(
      await Promise.all(messages.map((message) => compileError(message, file, folder))),
    );
  } finally {
    // Its child process would otherwise stay for as long as TokenMan runs.
    compiling--;
    if (compiling === 0) await esbuild.stop();
  }
}

async function compileError(message: Message, file: string, folder: string): Promise<TokenmanError> {
  if (message.detail instanceof TokenmanError) return message.detail;
  const { location } = message;
  const notes = message.notes.map((note) => note.text).filter((text) => text !== "");
  const hint = /^Could not resolve "zod"/.test(message.text)
    ? [`import { z } from "${SDK_MODULE}" instead`]
    : notes;
  const text = [message.text, ...hint].join("; ");
  return new TokenmanError("TM_PLUGIN_COMPILE", text, {
    cause: message,
    place: location === null ? { file } : await placeOf(location, folder),
  });
}

async function placeOf(location: NonNullable<Message["location"]>, folder: string): Promise<Place> {
  const { file: at, line, lineText } = location;
  // esbuild counts columns in UTF-8 bytes, from 0.
  const column = Buffer.from(lineText).subarray(0, location.column).toString().length + 1;
  const length = Buffer.from(lineText)
    .subarray(location.column, location.column + location.length)
    .toString().length;
  const file = resolve(folder, at);
  const source = await readFile(file, "utf8").catch(() => undefined);
  const frame =
    source === undefined ? codeFrame(lineText, 1, column, length) : codeFrame(source, line, column, length);
  return { file, line, column, frame };
}

/** Reads the sources for esbuild, so that what is hashed is what is compiled. */
function reader(inputs: Map<string, string>): EsbuildPlugin {
  return {
    name: "tokenman-reader",
    setup(build) {
      build.onLoad({ filter: /.*/, namespace: "file" }, async ({ path }) => {
        try {
          await requireSafe(path);
        } catch (error) {
          return { errors: [{ text: (error as Error).message, detail: error }] };
        }
        const contents = await readFile(path);
        inputs.set(path, sha256(contents));
        return { contents, loader: "default", resolveDir: dirname(path) };
      });
    },
  };
}

/** esbuild reads a package.json without loading it as a source; a change of it changes what is resolved. */
async function addManifests(inputs: Map<string, string>): Promise<void> {
  const looked = new Set<string>();
  for (const source of [...inputs.keys()]) {
    for (let at = dirname(source); !looked.has(at); at = dirname(at)) {
      looked.add(at);
      const manifest = join(at, "package.json");
      const content = await readFile(manifest).catch(() => undefined);
      if (content === undefined) continue;
      inputs.set(manifest, sha256(content));
      break;
    }
  }
}

/** Hex. */
export function sha256(content: string | Buffer): string {
  return createHash("sha256").update(content).digest("hex");
}
