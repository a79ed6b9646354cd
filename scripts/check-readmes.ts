import { execFileSync } from "node:child_process";
import { posix } from "node:path";

/** Folders of one test's data each: what they are is said one level up. Hidden folders are not for readers. */
const EXEMPT = /^test\/fixtures\/.|(^|\/)\./;

/** The folders, relative to `root`, that hold files of the repository but no README.md. */
export function foldersWithoutReadme(root: string): string[] {
  const listing = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard", "-z"], {
    cwd: root,
    encoding: "utf8",
  });
  const files = new Set(listing.split("\0").filter((file) => file !== ""));
  const folders = new Set<string>();
  for (const file of files) {
    for (let at = posix.dirname(file); ; at = posix.dirname(at)) {
      folders.add(at);
      if (at === ".") break;
    }
  }
  return [...folders]
    .filter((folder) => !EXEMPT.test(folder) && !files.has(posix.join(folder, "README.md")))
    .sort();
}
