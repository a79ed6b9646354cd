/** A structured logger (pino's shape): facts first, then a sentence. Secrets are redacted by name. */
export interface Logger {
  trace(facts: object, message?: string): void;
  debug(facts: object, message?: string): void;
  info(facts: object, message?: string): void;
  warn(facts: object, message?: string): void;
  error(facts: object, message?: string): void;
}
