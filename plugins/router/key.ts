import { readFile, stat } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { type Logger, Secret, TokenmanError } from "@tokenman/plugin-sdk";

/** Gives a provider's key whenever it is needed. Throws or rejects with TM_KEY_UNAVAILABLE. */
export type KeyReader = () => Promise<Secret> | Secret;

/** Where a key_ref leads. `provider` is for messages, which name the reference's kind but never show the key. */
export function keyReader(reference: string, provider: string, log: Logger): KeyReader {
  if (reference.startsWith("env:")) return fromEnvironment(reference.slice(4), provider);
  if (reference.startsWith("file:")) return new KeyFile(reference, provider, log).read;
  return () => {
    throw unavailable(
      provider,
      "its key_ref is in the system's keyring, and no plugin that reads keyrings is loaded",
    );
  };
}

/** The variable that is looked at where a provider has no key_ref: `TOKENMAN_KEY_ANTHROPIC` and the like. */
export function classicVariable(provider: string): string {
  return `TOKENMAN_KEY_${provider.toUpperCase().replace(/[^A-Z0-9]/g, "_")}`;
}

function fromEnvironment(variable: string, provider: string): KeyReader {
  let text: string | undefined;
  let secret: Secret | undefined;
  return () => {
    const value = process.env[variable];
    if (secret !== undefined && value === text) return secret;
    const trimmed = value?.trim();
    if (!trimmed) throw unavailable(provider, `the environment variable ${variable} is not set`);
    secret = secretOf(trimmed, provider);
    text = value;
    return secret;
  };
}

/** A key in a file. It is read again when the file was changed or replaced, so a key can be rotated while TokenMan runs. */
class KeyFile {
  readonly #provider: string;
  readonly #log: Logger;
  readonly #reference: string;
  #version = "";
  #secret: Secret | undefined;

  constructor(reference: string, provider: string, log: Logger) {
    this.#reference = reference;
    this.#provider = provider;
    this.#log = log;
  }

  readonly read = async (): Promise<Secret> => {
    let text: string;
    try {
      const path = fileURLToPath(this.#reference);
      const { mtimeNs, ctimeNs, ino, size, mode } = await stat(path, { bigint: true });
      const version = [mtimeNs, ctimeNs, ino, size].join(" ");
      if (this.#secret !== undefined && version === this.#version) return this.#secret;
      if ((mode & 0o004n) !== 0n) {
        this.#log.warn(
          { provider: this.#provider, path },
          "every user of this machine can read the key's file: chmod 600",
        );
      }
      text = await readFile(path, "utf8");
      this.#version = version;
    } catch (cause) {
      throw unavailable(this.#provider, "the file of its key_ref cannot be read", cause);
    }
    // Forgotten first, so that a file which became unusable does not leave the old key in use.
    this.#secret = undefined;
    this.#secret = secretOf(text.trim(), this.#provider);
    return this.#secret;
  };
}

/** A key goes into a header: what cannot stand there is refused here, where the message can say why. */
function secretOf(value: string, provider: string): Secret {
  if (value === "") throw unavailable(provider, "its key is empty");
  if (!/^[\x21-\x7e]+$/.test(value)) {
    throw unavailable(provider, "its key has white space or characters that no header can carry");
  }
  return new Secret(value);
}

function unavailable(provider: string, why: string, cause?: unknown): TokenmanError {
  return new TokenmanError("TM_KEY_UNAVAILABLE", `providers.${provider}: ${why}`, { cause });
}
