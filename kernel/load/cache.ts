import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Logger } from "@tokenman/plugin-sdk";
import { type Compiled, compile, sha256 } from "./compile.ts";

/** A plugin's code, as compiled or as found in the cache. */
export interface CachedCode {
  /** Hash over all inputs and the versions of what compiled them: same key, same code. */
  readonly key: string;
  readonly code: string;
  readonly inputs: readonly string[];
}

/** What the cache knows of one entry file. The inputs' hashes are compared with the files before the code is used. */
interface Manifest {
  readonly key: string;
  readonly entry: string;
  readonly host: string;
  readonly esbuild: string;
  readonly inputs: Readonly<Record<string, string>>;
  readonly codeHash: string;
}

/**
 * Compiled plugins in `DATA_DIR/cache/plugins` (0700): `KEY.cjs`, and for each entry file a manifest that says from
 * which bytes it was made. Writers replace files whole, so that two processes can share a folder. A cache that cannot
 * be written costs time, never a plugin.
 */
export class CompileCache {
  readonly #folder: string;
  readonly #host: string;
  readonly #log: Logger;

  /** `host` names the version of TokenMan; another version compiles anew. */
  constructor(folder: string, host: string, log: Logger) {
    this.#folder = folder;
    this.#host = host;
    this.#log = log;
  }

  /** The code of a plugin's entry file, compiled only where a byte of its inputs changed. Rejects as `compile` does. */
  async get(entry: string): Promise<CachedCode> {
    const cached = await this.#lookup(entry);
    if (cached !== undefined) return cached;
    const compiled = await compile(entry);
    return this.#store(entry, compiled);
  }

  async #lookup(entry: string): Promise<CachedCode | undefined> {
    const manifest = await this.#manifest(entry);
    if (manifest === undefined || manifest.host !== this.#host) return undefined;
    const esbuild = esbuildVersion();
    if (esbuild !== undefined && manifest.esbuild !== esbuild) return undefined;
    const inputs = Object.keys(manifest.inputs);
    const hashes = await Promise.all(inputs.map(hashFile));
    if (inputs.some((input, index) => manifest.inputs[input] !== hashes[index])) return undefined;
    const code = await readFile(this.#codeFile(manifest.key), "utf8").catch(() => undefined);
    if (code === undefined || sha256(code) !== manifest.codeHash) return undefined;
    return { key: manifest.key, code, inputs };
  }

  async #store(entry: string, compiled: Compiled): Promise<CachedCode> {
    const { code } = compiled;
    const inputs = Object.fromEntries([...compiled.inputs].sort());
    const codeHash = sha256(code);
    const key = sha256(JSON.stringify([this.#host, compiled.esbuild, entry, inputs, codeHash]));
    const manifest: Manifest = { key, entry, host: this.#host, esbuild: compiled.esbuild, inputs, codeHash };
    try {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      const before = await this.#manifest(entry);
      await replaceFile(this.#codeFile(key), code);
      await replaceFile(this.#manifestFile(entry), JSON.stringify(manifest));
      if (before !== undefined && before.key !== key) await rm(this.#codeFile(before.key), { force: true });
    } catch (error) {
      this.#log.warn({ err: error, folder: this.#folder }, "compiled plugins cannot be cached");
    }
    return { key, code, inputs: Object.keys(inputs) };
  }

  async #manifest(entry: string): Promise<Manifest | undefined> {
    const text = await readFile(this.#manifestFile(entry), "utf8").catch(() => undefined);
    if (text === undefined) return undefined;
    try {
      const manifest = JSON.parse(text) as Manifest;
      return manifest.entry === entry && /^[0-9a-f]{64}$/.test(manifest.key) ? manifest : undefined;
    } catch {
      return undefined;
    }
  }

  #manifestFile(entry: string): string {
    return join(this.#folder, `${sha256(entry).slice(0, 32)}.json`);
  }

  #codeFile(key: string): string {
    return join(this.#folder, `${key}.cjs`);
  }
}

/** Undefined where esbuild is not installed: then only what is cached can be loaded. */
function esbuildVersion(): string | undefined {
  try {
    return (createRequire(import.meta.url)("esbuild/package.json") as { version: string }).version;
  } catch {
    return undefined;
  }
}

async function replaceFile(file: string, text: string): Promise<void> {
  const fresh = `${file}.${process.pid}.tmp`;
  await writeFile(fresh, text, { mode: 0o600 });
  await rename(fresh, file);
}

async function hashFile(file: string): Promise<string | undefined> {
  return readFile(file).then(sha256, () => undefined);
}
