import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const ROOT = join(import.meta.dirname, "..", "..");

/** A project of somebody who has `@tokenman/plugin-sdk` from the registry and has never seen this repository. */
export interface OutsideProject {
  readonly folder: string;
  write(files: Readonly<Record<string, string>>): void;
  /** Copies a folder of this repository to the project's own. */
  copy(from: string, to?: string): void;
  /** What the strict compiler says of all files; "" where it finds nothing. */
  typeCheck(): string;
  /** Runs `node --test` on files; gives its exit code, and its report in TAP. */
  test(...files: readonly string[]): { readonly status: number | null; readonly report: string };
  remove(): void;
}

/** Builds and packs the SDK, and installs the tarball into a new project in the temporary folder. */
export function outsideProject(): OutsideProject {
  const folder = mkdtempSync(join(tmpdir(), "outside-"));
  try {
    installPacked(folder);
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
  const write = (files: Readonly<Record<string, string>>): void => {
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), text);
    }
  };
  write({ "package.json": '{ "type": "module" }' });
  return {
    folder,
    write,
    copy: (from, to = ".") =>
      cpSync(join(ROOT, from), join(folder, to), {
        recursive: true,
        filter: (path) => !/[/\\]node_modules$/.test(path),
      }),
    typeCheck() {
      const compilerOptions = {
        module: "nodenext",
        target: "es2024",
        lib: ["es2024", "esnext"],
        types: ["node"],
        strict: true,
        noEmit: true,
        allowImportingTsExtensions: true,
        skipLibCheck: false,
      };
      write({ "tsconfig.json": JSON.stringify({ compilerOptions, include: ["**/*.ts"] }) });
      const tsc = join(folder, "node_modules", "typescript", "bin", "tsc");
      return spawnSync(process.execPath, [tsc, "-p", folder], { encoding: "utf8" }).stdout;
    },
    test(...files) {
      const args = ["--test", "--test-reporter=tap", "--test-timeout=30000", ...files];
      // Node's runner would take it for a part of this test.
      const env = { ...process.env, NODE_TEST_CONTEXT: undefined };
      const options = { cwd: folder, env, encoding: "utf8", timeout: 60_000 } as const;
      const { status, stdout, stderr } = spawnSync(process.execPath, args, options);
      return { status, report: stdout + stderr };
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

function installPacked(folder: string): void {
  const built = join(folder, "built");
  execFileSync(process.execPath, [join(ROOT, "scripts", "build-sdk.ts"), built], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  const packed = execFileSync("npm", ["pack", "--silent", "--offline", "--pack-destination", folder], {
    cwd: built,
    encoding: "utf8",
  }).trim();
  rmSync(built, { recursive: true });
  // Unpacked rather than installed by npm, which without a network finds none of the dependencies: those are linked
  // from this repository, with the compiler that the project itself would have.
  const target = join(folder, "node_modules", "@tokenman", "plugin-sdk");
  mkdirSync(target, { recursive: true });
  execFileSync("tar", ["xzf", join(folder, packed), "--strip-components=1", "-C", target]);
  rmSync(join(folder, packed));
  const { dependencies } = JSON.parse(readFileSync(join(target, "package.json"), "utf8")) as {
    readonly dependencies: object;
  };
  for (const name of [...Object.keys(dependencies), "typescript", "@typescript", "@types", "undici-types"])
    symlinkSync(join(ROOT, "node_modules", name), join(folder, "node_modules", name));
}
