import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { formatViolation, importViolations } from "../../scripts/check-imports.ts";
import { foldersWithoutReadme } from "../../scripts/check-readmes.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "checks-"));
  put("package.json", JSON.stringify({ dependencies: { pino: "1", undici: "1", "@scope/name": "1" } }));
  put("plugin-sdk/package.json", JSON.stringify({ dependencies: { zod: "1" } }));
});
afterEach(() => rmSync(root, { recursive: true }));

function put(file: string, content: string): void {
  mkdirSync(dirname(join(root, file)), { recursive: true });
  writeFileSync(join(root, file), content);
}

/** The violations of one file with this content, as "line: specifier". */
function violations(file: string, content: string): string[] {
  put(file, content);
  return importViolations(root).map(({ line, specifier }) => `${line}: ${specifier}`);
}

describe("the import rule", () => {
  const allowed: [file: string, imports: string[]][] = [
    [
      "plugins/a/index.ts",
      ["@tokenman/plugin-sdk", "node:fs", "pino", "pino/file", "@scope/name/x", "./b.ts", "./deep/c.ts"],
    ],
    ["plugins/a/deep/c.ts", ["../index.ts", "../other.ts"]],
    ["examples/x/index.ts", ["@tokenman/plugin-sdk", "node:fs"]],
    ["kernel/load/x.ts", ["@tokenman/plugin-sdk", "../flow.ts", "undici"]],
    ["plugin-sdk/src/x.ts", ["./y.ts", "zod", "node:buffer"]],
    ["plugin-sdk/testkit/x.ts", ["../src/index.ts", "./y.ts", "zod", "node:net"]],
    ["cli/x.ts", ["../kernel/kernel.ts", "../plugins/a/index.ts", "pino", "@tokenman/plugin-sdk"]],
    ["test/x.ts", ["../kernel/kernel.ts", "../plugins/a/index.ts"]],
  ];
  for (const [file, imports] of allowed) {
    test(`lets ${file} import what it may`, () => {
      assert.deepEqual(violations(file, imports.map((from) => `import "${from}";`).join("\n")), []);
    });
  }

  const refused: [file: string, imports: string[]][] = [
    [
      "plugins/a/index.ts",
      [
        "../../kernel/kernel.ts",
        "../b/index.ts",
        "../../cli/main.ts",
        "../../plugin-sdk/src/sse.ts",
        "left-pad",
        "fs",
      ],
    ],
    ["plugins/a/deep/c.ts", ["../../ab/x.ts"]],
    ["examples/x/index.ts", ["../../kernel/kernel.ts", "../../plugins/a/index.ts", "../y/index.ts", "pino"]],
    ["kernel/x.ts", ["../plugins/a/index.ts", "../cli/main.ts", "../plugin-sdk/src/sse.ts", "left-pad"]],
    [
      "plugin-sdk/src/x.ts",
      ["../testkit/index.ts", "../../kernel/reply/flow.ts", "pino", "@tokenman/plugin-sdk"],
    ],
    ["plugin-sdk/testkit/x.ts", ["../../kernel/kernel.ts", "../../cli/test-host.ts", "undici"]],
    ["web/app.ts", ["../kernel/reply/flow.ts", "@tokenman/plugin-sdk", "pino"]],
    ["cli/x.ts", ["../test/support/x.ts", "../scripts/build.ts"]],
  ];
  for (const [file, imports] of refused) {
    test(`keeps ${file} from what it may not import`, () => {
      const content = imports.map((from) => `import "${from}";`).join("\n");
      assert.deepEqual(
        violations(file, content),
        imports.map((from, index) => `${index + 1}: ${from}`),
      );
    });
  }

  test("sees every way to import, types included, and no comments", () => {
    const content = [
      'import type { A } from "bad-1";',
      "import {",
      "  b,",
      '} from "bad-2"; // import "commented"',
      "export * from 'bad-3';",
      'type C = import("bad-4").C;',
      'const d = await import("bad-5");',
      'const e = require("bad-6");',
      '/* import "commented"; */ const url = "http://x"; import "bad-7";',
      'const glob = `http://x/*`; export { f } from "bad-8";',
      '// import "commented";',
    ].join("\n");
    assert.deepEqual(violations("plugins/a/index.ts", content), [
      "1: bad-1",
      "4: bad-2",
      "5: bad-3",
      "6: bad-4",
      "7: bad-5",
      "8: bad-6",
      "9: bad-7",
      "10: bad-8",
    ]);
  });

  test("says file, line and what is wrong", () => {
    put("plugins/a/index.ts", '\nimport { x } from "../b/index.ts";');
    assert.deepEqual(importViolations(root).map(formatViolation), [
      'plugins/a/index.ts:2: imports "../b/index.ts": plugins/a may not import plugins/b/index.ts',
    ]);
  });
});

test("each folder with files needs a README, but for hidden ones and the data of fixtures", () => {
  execFileSync("git", ["init", "-q"], { cwd: root });
  put(".gitignore", "dist/\n");
  for (const file of [
    "README.md",
    "a/README.md",
    "a/b/x.ts",
    "dist/x.js",
    ".ci/run",
    "test/README.md",
    "test/fixtures/README.md",
    "test/fixtures/one/x.json",
  ]) {
    put(file, "x");
  }
  assert.deepEqual(foldersWithoutReadme(root), ["a/b", "plugin-sdk"]);
});
