/** What may be spelled in another way. A path without any of it, as nearly all are, is left alone. */
const ODD = /[%\\]|\/\/|\/\.|.\/$/;

/**
 * A path in the one spelling that routes are written in: percent-encodings resolved, "." and ".." followed, doubled and
 * trailing slashes gone (RFC 3986 §6.2.2). More lenient than that: encoded slashes and backslashes count as slashes, as
 * they do for some servers. For recognising a path only: what goes out is spelled as it came.
 */
export function canonicalPath(path: string): string {
  if (!ODD.test(path)) return path;
  const plain = path.replace(/%[0-9a-f]{2}/gi, (code) =>
    String.fromCharCode(Number.parseInt(code.slice(1), 16)),
  );
  const parts: string[] = [];
  for (const part of plain.split(/[/\\]/)) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}
