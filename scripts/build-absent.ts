import type { Plugin } from "esbuild";

/** What is in the place of a package's file: its path, how it ends, and what TokenMan would do to need it. */
const ABSENT: readonly (readonly [filter: RegExp, contents: string])[] = [
  // HTTP/2 is off (kernel/README.md). The file loads Node's own when it is loaded.
  [/[\\/]undici[\\/]lib[\\/]dispatcher[\\/]client-h2\.js$/, "module.exports = undefined;"],
  // For bodies that are forms, blobs or iterators; the kernel sends bytes and streams.
  [/[\\/]undici[\\/]lib[\\/]web[\\/]fetch[\\/]body\.js$/, "module.exports = {};"],
  // Some fifty languages of error messages. TokenMan's are in English, and so are those of what is written for it.
  [/[\\/]zod[\\/]v4[\\/]locales[\\/]index\.js$/, 'export { default as en } from "./en.js";'],
];

/** Leaves out of the bundle what packages bring along and TokenMan never uses. Fails where that is no longer there. */
export function absent(): Plugin {
  return {
    name: "absent",
    setup({ onLoad, onEnd }) {
      const left = new Set(ABSENT);
      for (const entry of ABSENT) {
        const [filter, contents] = entry;
        onLoad({ filter }, () => {
          left.delete(entry);
          return { contents, loader: "js" };
        });
      }
      onEnd(() => {
        for (const [filter] of left)
          throw new Error(`nothing that is bundled is ${filter}: see build-absent.ts`);
      });
    },
  };
}
