import crypto from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { TokenmanError } from "@tokenman/plugin-sdk";

const KEY_BYTES = 32;

export function instanceKeyFile(dataDir: string): string {
  return path.join(dataDir, "instance.key");
}

/** The key of a data folder, which is made where there is none. Throws TM_DATA_DIR. */
export function instanceKey(dataDir: string): Buffer {
  const file = instanceKeyFile(dataDir);
  try {
    const key = readFileSync(file);
    if (key.length === KEY_BYTES) return key;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT")
      throw new TokenmanError("TM_DATA_DIR", `${file} cannot be read`, { cause });
  }
  const key = crypto.randomBytes(KEY_BYTES);
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    writeFileSync(file, key, { mode: 0o600 });
    chmodSync(file, 0o600);
  } catch (cause) {
    throw new TokenmanError("TM_DATA_DIR", `${file} cannot be written`, { cause });
  }
  return key;
}
