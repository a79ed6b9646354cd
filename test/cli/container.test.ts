/** The container image without a container: what the Dockerfile copies, runs and starts, in a folder. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, it } from "node:test";
import { promisify } from "node:util";

const REPOSITORY = join(import.meta.dirname, "..", "..");
const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), "container-"));

interface Step {
  readonly name: string;
  readonly rest: string;
}

/** The instructions of each stage, `FROM` included. */
function stages(): Step[][] {
  const text = readFileSync(join(REPOSITORY, "Dockerfile"), "utf8").replace(/\\\n/g, " ");
  const found: Step[][] = [];
  for (const line of text.split("\n")) {
    const match = /^([A-Z]+)\s+(.*)$/.exec(line.trim());
    if (match === null) continue;
    const step = { name: match[1]!, rest: match[2]!.trim() };
    if (step.name === "FROM") found.push([]);
    found.at(-1)!.push(step);
  }
  return found;
}

/** A stage's file system and settings. */
class Stage {
  readonly root: string;
  readonly env: Record<string, string> = {};
  workdir = "/";
  entry: string[] = [];
  command: string[] = [];
  check: string[] = [];
  readonly #source: (from: string | undefined, path: string) => string;

  constructor(name: string, source: (from: string | undefined, path: string) => string) {
    this.root = join(folder, name);
    this.#source = source;
    mkdirSync(this.root);
  }

  /** The environment of what runs in it: nothing of this one but the way to its programs. */
  get environment(): Record<string, string> {
    const path = `${join(this.root, "usr/local/bin")}:${dirname(process.execPath)}:${process.env["PATH"]}`;
    const inside = Object.entries(this.env).map(([name, value]) => [name, this.#inside(value)] as const);
    return { PATH: path, HOME: this.root, ...Object.fromEntries(inside) };
  }

  async take({ name, rest }: Step): Promise<void> {
    switch (name) {
      case "WORKDIR":
        this.workdir = rest;
        mkdirSync(join(this.root, rest), { recursive: true });
        break;
      case "COPY":
        this.#copy(rest.split(/\s+/));
        break;
      case "RUN":
        await this.#run(rest);
        break;
      case "ENV":
        for (const [, key, value] of rest.matchAll(/(\w+)=(\S+)/g)) this.env[key!] = value!;
        break;
      case "ENTRYPOINT":
        this.entry = JSON.parse(rest) as string[];
        break;
      case "CMD":
        this.command = JSON.parse(rest) as string[];
        break;
      case "HEALTHCHECK":
        this.check = JSON.parse(/CMD (\[.*\])$/.exec(rest)![1]!) as string[];
        break;
      default:
        assert.ok(
          ["FROM", "USER", "VOLUME", "EXPOSE"].includes(name),
          `an instruction nobody tests: ${name}`,
        );
    }
  }

  #copy(words: string[]): void {
    const from = words[0]!.startsWith("--from=") ? words.shift()!.slice("--from=".length) : undefined;
    const target = words.pop()!;
    const to = join(this.root, target.startsWith("/") ? target : join(this.workdir, target));
    for (const word of words) {
      const path = this.#source(from, word);
      // A file keeps its name where the target is a folder; a folder's content is copied.
      const isFile = statSync(path).isFile();
      const isIntoFolder = isFile && (target.endsWith("/") || words.length > 1);
      mkdirSync(isIntoFolder ? to : dirname(to), { recursive: true });
      cpSync(path, isIntoFolder ? join(to, basename(path)) : to, { recursive: true, verbatimSymlinks: true });
    }
  }
  async #run(line: string): Promise<void> {
    // Accounts are the container's; the folder that goes with them is made here.
    if (line.startsWith("useradd ")) mkdirSync(join(this.root, "data"), { mode: 0o700 });
    // npm has its settings, proxy and cache from the machine.
    else
      await run("sh", ["-c", this.#inside(line)], {
        cwd: join(this.root, this.workdir),
        env: { ...process.env, npm_config_prefer_offline: "true", PATH: this.environment["PATH"] },
      });
  }
  /** Absolute paths of the container are folders here. */
  #inside(text: string): string {
    return text.replace(
      /(^|[\s:=])(\/(?:opt|usr\/local|data)\b)/g,
      (_, lead, path) => `${lead}${this.root}${path}`,
    );
  }
}

let image: Stage;

before(async () => {
  // What git does not ignore is what a clean clone sends to the builder.
  const context = join(folder, "context");
  const { stdout } = await run("git", ["ls-files", "--cached", "--others", "--exclude-standard", "-z"], {
    cwd: REPOSITORY,
  });
  for (const path of stdout.split("\0").filter((each) => each !== "" && existsSync(join(REPOSITORY, each))))
    cpSync(join(REPOSITORY, path), join(context, path), { recursive: true });
  const [buildSteps, imageSteps] = stages();
  const build = new Stage("build", (_, path) => join(context, path));
  for (const step of buildSteps!) await build.take(step);
  image = new Stage("image", (from, path) => {
    assert.equal(from, "build");
    return join(build.root, path);
  });
  for (const step of imageSteps!) await image.take(step);
});
after(() => rmSync(folder, { recursive: true, force: true }));

it("is built from what a clean clone has, serves with a token it made, is healthy, and stops when asked to", async () => {
  const [shell, script, ...more] = [...image.entry, ...image.command];
  const ports = { TOKENMAN_SERVER_PROXY_PORT: "0", TOKENMAN_SERVER_DASHBOARD_PORT: "0" };
  const child = spawn(shell!, [join(image.root, script!), ...more], {
    cwd: join(image.root, image.workdir),
    env: { ...image.environment, ...ports },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const exited = once(child, "exit");
  try {
    let token: string | undefined;
    let serves: { proxy: string; dashboard: string } | undefined;
    for await (const line of createInterface(child.stderr)) {
      token ??= /clients need the token: (\S+)/.exec(line)?.[1];
      if (!line.includes("TokenMan serves")) continue;
      serves = JSON.parse(line);
      break;
    }
    child.stderr.resume();
    assert.ok(serves !== undefined && token !== undefined);
    const at = (address: string, path: string) => `http://127.0.0.1:${new URL(address).port}${path}`;
    const ask = (headers: Record<string, string>) =>
      fetch(at(serves.proxy, "/v1/messages"), {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: JSON.stringify({ model: "mock", max_tokens: 8, messages: [{ role: "user", content: "hi" }] }),
      });
    assert.equal((await ask({})).status, 401);
    const answer = await ask({ "x-api-key": token });
    assert.equal(answer.status, 200);
    assert.equal(((await answer.json()) as { type: string }).type, "message");
    assert.equal(readFileSync(join(image.root, "data/auth-token"), "utf8").trim(), token);
    assert.equal(statSync(join(image.root, "data/auth-token")).mode & 0o077, 0);
    const [program, ...check] = image.check.map((word) =>
      word.replace("http://127.0.0.1:7678", new URL(at(serves.dashboard, "")).origin),
    );
    await run(program!, check, { env: image.environment });
  } finally {
    child.kill("SIGTERM");
  }
  const [code] = await exited;
  assert.equal(code, 0);
});
