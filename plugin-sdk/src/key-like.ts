/**
 * The shapes of vendors' keys, JSON Web Tokens and bearer values. Each is bounded, so that none is slow on any text, and
 * asks for a separator, so that a word that only begins like a key ("skeleton", "ghostwriter") stays readable.
 */
const KEY_LIKE = [
  /\b(?:sk|pk|rk|gsk|csk|xai|fw|pplx|nvapi|tvly|hf|r8|gh[a-z]|glpat|xox[a-z])[-_][-_A-Za-z0-9]{12,500}/g,
  /\b(?:AIza|AKIA)[-_A-Za-z0-9]{12,500}/g,
  /\beyJ[-_A-Za-z0-9]{8,4000}\.[-_A-Za-z0-9]{8,4000}\.[-_A-Za-z0-9]{0,4000}/g,
  /\bbearer +[-._~+/=A-Za-z0-9]{12,4000}/gi,
] as const;
/** User name and password of a URL, up to their "@". */
const URL_CREDENTIAL = /(\b[a-z][a-z0-9+.-]{0,30}:\/\/)[^\s/@"']{1,500}@/gi;

/** `text` with everything in it that looks like a credential replaced by `mask`. */
export function maskKeys(text: string, mask = "[redacted]"): string {
  let result = text.replace(URL_CREDENTIAL, `$1${mask}@`);
  for (const pattern of KEY_LIKE) result = result.replace(pattern, mask);
  return result;
}
