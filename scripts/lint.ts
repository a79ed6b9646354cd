/** `make lint`: every check that needs no running TokenMan. Exits 1 if any fails, after all of them ran. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { formatViolation, importViolations } from "./check-imports.ts";
import { foldersWithoutReadme } from "./check-readmes.ts";

const ROOT = join(import.meta.dirname, "..");
const bin = (name: string) => join(ROOT, "node_modules", ".bin", name);

function run(command: string, args: readonly string[]): boolean {
  // The tools' own launchers ask the PATH for Node; they find the one that runs this.
  const PATH = `${join(ROOT, "node_modules", ".bin")}:${process.env["PATH"] ?? ""}`;
  const result = spawnSync(command, args, { cwd: ROOT, stdio: "inherit", env: { ...process.env, PATH } });
  return result.status === 0;
}

function report(lines: readonly string[]): boolean {
  for (const line of lines) console.error(line);
  return lines.length === 0;
}

const checks: readonly (readonly [name: string, check: () => boolean])[] = [
  ["format and lint", () => run(bin("biome"), ["check", "--error-on-warnings", "."])],
  ["types", () => run(bin("tsc"), ["-p", "."])],
  ["import rule", () => report(importViolations(ROOT).map(formatViolation))],
  [
    "a README in each folder",
    () => report(foldersWithoutReadme(ROOT).map((folder) => `${folder} has no README.md`)),
  ],
  ["generated files", () => run(process.execPath, [join(ROOT, "scripts", "generate-config.ts"), "--check"])],
];

const failed = checks.filter(([name, check]) => {
  const ok = check();
  console.log(`${ok ? "ok    " : "FAILED"} ${name}`);
  return !ok;
});
process.exitCode = failed.length === 0 ? 0 : 1;
