/** A request that the vendor would refuse, with what its error says besides the message. */
export class RequestError extends Error {
  readonly status: number;
  /** OpenAI's `param` and `code`. */
  readonly param: string | null;
  readonly code: string | null;

  constructor(message: string, facts: { status?: number; param?: string; code?: string } = {}) {
    super(message);
    this.name = "RequestError";
    this.status = facts.status ?? 400;
    this.param = facts.param ?? null;
    this.code = facts.code ?? null;
  }
}
