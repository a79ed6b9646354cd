import { type ErrorCode, TokenmanError } from "@tokenman/plugin-sdk";

function codeOf(cause: Error): string {
  return (cause as NodeJS.ErrnoException).code ?? "";
}
/** Whether the peer ended the connection without a word. */
export function isReset(cause: Error): boolean {
  return ["ECONNRESET", "EPIPE", "UND_ERR_SOCKET"].includes(codeOf(cause));
}

/** What a call was waiting for when it failed; "answer": for the rest of a head that had begun. */
type Phase = "connect" | "head" | "answer" | "body";

/** What went wrong with an upstream, in TokenMan's terms. */
export function upstreamError(cause: Error, phase: Phase): TokenmanError {
  if (cause instanceof TokenmanError) return cause;
  const code = codeOf(cause);
  // Of a name with several addresses each has its own error.
  const said = cause instanceof AggregateError ? cause.errors.map(String).join("; ") : cause.message;
  const message = `${code === "" ? cause.name : code}: ${said}`;
  return new TokenmanError(classify(code, phase, cause.name), message, { cause });
}

const TLS_CODES = /CERT|TLS|SSL|SELF_SIGNED|UNABLE_TO|INVALID_(?:CA|PURPOSE)|PATH_LENGTH_EXCEEDED|HOSTNAME/;

function classify(code: string, phase: Phase, name: string): ErrorCode {
  // Undici's own checks: a header or path that HTTP does not allow was never sent.
  if (code === "UND_ERR_INVALID_ARG" || code === "UND_ERR_NOT_SUPPORTED") return "TM_BAD_REQUEST";
  if (code === "UND_ERR_HEADERS_TIMEOUT") return "TM_UPSTREAM_TIMEOUT";
  if (code === "UND_ERR_BODY_TIMEOUT") return "TM_UPSTREAM_IDLE";
  if (phase === "body") return "TM_UPSTREAM_CUT";
  // With TLS 1.3 a server refuses this side's certificate when this side thinks that the connection stands.
  if (phase !== "answer" && TLS_CODES.test(code)) return "TM_UPSTREAM_TLS";
  if (phase === "connect") return "TM_UPSTREAM_CONNECT";
  // Undici's parser gives no code to most of what it does not understand.
  if (name === "HTTPParserError" || code === "UND_ERR_HEADERS_OVERFLOW") return "TM_UPSTREAM_PROTOCOL";
  // What was answered in part must not be sent twice: whoever decides about that is told apart from a plain reset.
  if (phase === "answer") return "TM_UPSTREAM_CUT";
  return "TM_UPSTREAM_RESET";
}
