/**
 * Headers that carry a credential with one vendor, proxy or cloud or another, in lower case. The kernel takes off those
 * that a loaded format declares; a client of a vendor that no plugin knows may send one of the others.
 */
export const CREDENTIAL_HEADERS: ReadonlySet<string> = new Set([
  "authorization",
  "x-api-key",
  "api-key",
  "apikey",
  "x-goog-api-key",
  "x-goog-iam-authorization-token",
  "ocp-apim-subscription-key",
  "x-amz-security-token",
  "x-auth-token",
  "x-access-token",
  "x-functions-key",
  "cookie",
]);

const CREDENTIAL_QUERY = /[?&](?:key|api[-_]?key|access[-_]?token|token|sig|code)=/i;

/** Whether the query part of a request's target carries a credential, which cannot be taken off like a header. */
export function hasCredentialInQuery(target: string): boolean {
  return CREDENTIAL_QUERY.test(target);
}
