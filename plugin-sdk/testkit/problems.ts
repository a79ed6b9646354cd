/** A JSON object of unknown content. */
export type Json = Readonly<Record<string, unknown>>;

/** Something that an API would refuse. */
export interface Problem {
  /** JSON pointer of the place; "" is the whole body. */
  readonly pointer: string;
  /** What is wrong, without the place: the same for the same kind of problem. */
  readonly message: string;
}

/** Collects what is wrong with a request. */
export class Problems {
  readonly found: Problem[] = [];

  add(pointer: string, message: string): void {
    this.found.push({ pointer, message });
  }
}

export function objectOf(value: unknown): Json | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : undefined;
}

export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

export function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}
