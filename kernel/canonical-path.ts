/** What may be spelled in another way. A path without any of it, as nearly all are, is left alone. */
const ODD = /[%\\;]|\/\/|\/\.|.\/$/;

/**
 * A path in the one spelling that routes are written in: percent-encodings resolved, "." and ".." followed, doubled and
 * trailing slashes gone (RFC 3986 §6.2.2). More lenient than that: encoded slashes and backslashes count as slashes, and
 * what follows a semicolon in a segment, its parameters (§3.3), counts for nothing, as it does for some servers. For
 * recognising a path only: what goes out is spelled as it came.
 */
export function canonicalPath(path: string): string {
  if (!ODD.test(path)) return path;
  const plain = path.replace(/%[0-9a-f]{2}/gi, (code) =>
    String.fromCharCode(Number.parseInt(code.slice(1), 16)),
  );
  const parts: string[] = [];
  for (const segment of plain.split(/[/\\]/)) {
    const end = segment.indexOf(";");
    const part = end < 0 ? segment : segment.slice(0, end);
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}
