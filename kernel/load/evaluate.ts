import Module, { isBuiltin } from "node:module";
import { dirname, isAbsolute } from "node:path";
import { setFlagsFromString } from "node:v8";
import * as sdk from "@tokenman/plugin-sdk";
import { SDK_MODULE } from "./compile.ts";

/** The parts of Node's CommonJS module that its types leave out. */
interface CommonJsModule {
  filename: string;
  paths: string[];
  exports: unknown;
  require(id: string): unknown;
  _compile(code: string, file: string): void;
}
const CommonJsModule = Module as unknown as new (id: string) => CommonJsModule;

/** What a bundle exports, and what its stack traces depend on. */
export interface Evaluated {
  readonly exports: unknown;
  readonly module: object;
}

const nodeRequire = Module.createRequire(import.meta.url);

/**
 * Runs a bundle made by `compile` and returns what it exports. It is registered nowhere, so that it is collected
 * once nothing refers to it: not in `require.cache`, and not in V8's compilation cache, which is off for the
 * moment of compiling. Node reads the inline source map: stack traces name the plugin's own files and lines, for as long
 * as `module` is held: Node keeps the map by it, weakly.
 */
export function evaluate(code: string, file: string): Evaluated {
  process.setSourceMapsEnabled(true);
  const module = new CommonJsModule(file);
  module.filename = file;
  // Everything is bundled; nothing may be found beside the plugin at run time.
  module.paths = [];
  module.require = supply;
  setFlagsFromString("--no-compilation-cache");
  try {
    module._compile(code, file);
  } finally {
    setFlagsFromString("--compilation-cache");
  }
  return { exports: module.exports, module };

  function supply(id: string): unknown {
    if (id === SDK_MODULE) return sdk;
    if (isBuiltin(id)) return process.getBuiltinModule(id);
    // Native add-ons cannot be bundled.
    if (id.endsWith(".node"))
      return nodeRequire(isAbsolute(id) ? id : nodeRequire.resolve(id, { paths: [dirname(file)] }));
    throw new Error(
      `Cannot find module '${id}': a plugin can use ${SDK_MODULE}, Node's own modules and what it was bundled with`,
    );
  }
}
