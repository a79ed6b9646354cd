import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { ServerConfig } from "./config/index.ts";

type Key = "cert_file" | "key_file";

/**
 * What is wrong with the files that `server.tls_enabled` needs: found with the configuration's other problems rather than
 * when a port is opened. TM_CONFIG_INVALID, each with its key.
 */
export function certificateFaults(server: ServerConfig): TokenmanError[] {
  const faults: TokenmanError[] = [];
  // That one of them is not named is told by the config itself.
  if (!server.tls_enabled || server.cert_file === "" || server.key_file === "") return faults;
  const read = <T>(key: Key, what: string, parse: (content: Buffer) => T): T | undefined => {
    const fault = (found: string) =>
      void faults.push(faultOf(key, `expected ${what}, found ${found} at ${server[key]}`));
    let content: Buffer;
    try {
      content = readFileSync(server[key]);
    } catch (cause) {
      fault(REASONS[(cause as NodeJS.ErrnoException).code ?? ""] ?? (cause as Error).message);
      return undefined;
    }
    try {
      return parse(content);
    } catch {
      fault("something else");
      return undefined;
    }
  };
  const certificate = read("cert_file", "a certificate chain (PEM)", (pem) => new X509Certificate(pem));
  const privateKey = read("key_file", "a private key (PEM) without a passphrase", (pem) =>
    createPrivateKey(pem),
  );
  if (certificate !== undefined && privateKey !== undefined && !certificate.checkPrivateKey(privateKey))
    faults.push(faultOf("key_file", `expected the private key of ${server.cert_file}, found another's`));
  return faults;
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no file",
  EACCES: "a file that may not be read",
  EISDIR: "a folder",
};

function faultOf(key: Key, problem: string): TokenmanError {
  return new TokenmanError("TM_CONFIG_INVALID", `server.${key}: ${problem}`, { configPath: ["server", key] });
}
