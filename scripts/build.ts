/** `make build`: bundles the CLI with everything it needs into dist/tokenman, and writes the launcher bin/tokenman. */
import { chmod, copyFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { bundle } from "./bundle.ts";

const ROOT = join(import.meta.dirname, "..");

await bundle(ROOT, join(ROOT, "dist", "tokenman"));
await mkdir(join(ROOT, "bin"), { recursive: true });
const launcher = join(ROOT, "bin", "tokenman");
await copyFile(join(ROOT, "scripts", "launcher.sh"), launcher);
await chmod(launcher, 0o755);
