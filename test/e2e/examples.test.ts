import assert from "node:assert/strict";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import {
  assertBytesEqual,
  providersAt,
  type RecordingUpstream,
  recordingUpstream,
  sendRequest,
  textEvents,
  textReply,
} from "@tokenman/plugin-sdk/testkit";
import { Sandbox } from "../cli/support/instance.ts";
import { type OutsideProject, outsideProject } from "../support/outside.ts";

const EXAMPLES = join(import.meta.dirname, "..", "..", "examples");
const JSON_TYPE = ["Content-Type", "application/json"];
const KEY = ["Authorization", "Bearer sk-test"];

/** A user's folder, with a copy of the example beside the config file. */
function sandboxWith(example: string, config = ""): Sandbox {
  const sandbox = new Sandbox(config);
  cpSync(join(EXAMPLES, example), join(sandbox.folder, example), { recursive: true });
  return sandbox;
}

async function withUpstream(run: (upstream: RecordingUpstream) => Promise<void>): Promise<void> {
  await using upstream = await recordingUpstream();
  await run(upstream);
  assert.deepEqual(upstream.failures, []);
}

describe("the examples, as their READMEs say", () => {
  test("header: adds its header, a project's own one, and leaves all else to the byte", async () => {
    await withUpstream(async (upstream) => {
      await using sandbox = sandboxWith(
        "header",
        `${providersAt(upstream.url)}
[plugins.configs.header]
value = "platform"
[projects.website.plugins.configs.header]
value = "web"
`,
      );
      const { proxy } = await sandbox.serve("--plugins", "+./header");
      const body = '{"model":"gpt-x",  "messages":[], "n":1.0}';
      await sendRequest(`${proxy}/v1/chat/completions`, { headers: [...JSON_TYPE, ...KEY], body });
      await sendRequest(`${proxy}/p/website/v1/chat/completions`, { headers: [...JSON_TYPE, ...KEY], body });
      const [plain, website] = upstream.requests;
      assert.equal(plain?.header("x-team"), "platform");
      assert.equal(website?.header("x-team"), "web");
      for (const request of upstream.requests) {
        assertBytesEqual(request.body, body);
        const own = ["host", "connection", "content-length", "x-team"];
        const rest = request.headers.filter((_, at, all) => !own.includes(all[at - (at % 2)]!.toLowerCase()));
        assert.deepEqual(rest, [...JSON_TYPE, ...KEY]);
      }
    });
  });

  test("shout: a stream and a body are in capitals, but not for the project that disables it", async () => {
    await withUpstream(async (upstream) => {
      await using sandbox = sandboxWith(
        "shout",
        `${providersAt(upstream.url)}
[plugins]
order = ["./shout"]
[projects.library]
disable = ["shout"]
`,
      );
      const { proxy } = await sandbox.serve();
      const ask = (path: string, stream: boolean) =>
        sendRequest(proxy + path, {
          headers: [...JSON_TYPE, ...KEY],
          body: JSON.stringify({ model: "m", stream }),
        });
      const stream = await ask("/v1/messages", true);
      assertBytesEqual(stream.body, Buffer.concat(textEvents("anthropic-messages", ["HELLO", " THERE."])));
      const responses = await ask("/v1/responses", true);
      assertBytesEqual(responses.body, Buffer.concat(textEvents("openai-responses", ["HELLO", " THERE."])));
      const whole = await ask("/v1/chat/completions", false);
      assertBytesEqual(whole.body, textReply("openai-chat", "HELLO THERE.").body as string);
      const quiet = await ask("/p/library/v1/messages", true);
      assertBytesEqual(quiet.body, Buffer.concat(textEvents("anthropic-messages")));
    });
  });

  test("parrot: answers, and its command lists what it has learnt, while it runs and after", async () => {
    await using sandbox = sandboxWith("parrot", '[plugins]\norder = ["./parrot"]\n');
    assert.match((await sandbox.run("parrot")).stdout, /has learnt nothing yet/);
    const { proxy, child, ended } = await sandbox.serve();
    const ask = async (content: string) => {
      const body = JSON.stringify({ model: "parrot", max_tokens: 9, messages: [{ role: "user", content }] });
      const reply = await sendRequest(`${proxy}/v1/messages`, { headers: JSON_TYPE, body });
      return JSON.parse(reply.body.toString()).content[0].text;
    };
    assert.equal(await ask("Polly wants a cracker"), "Polly wants a cracker");
    assert.equal(await ask("Ahoy!"), "Ahoy!");
    assert.equal(await ask("Ahoy!"), "Ahoy!");
    child.kill("SIGTERM");
    assert.equal((await ended).status, 0);
    const { status, stdout } = await sandbox.run("parrot");
    assert.deepEqual([status, stdout], [0, '    2  "Ahoy!"\n    1  "Polly wants a cracker"\n']);
    assert.match((await sandbox.run("--help")).stdout, /parrot\s+List what the parrot has learnt/);
  });
});

describe("the examples' own tests, with the packed SDK", () => {
  let project: OutsideProject;
  before(() => {
    project = outsideProject();
    for (const example of ["header", "shout", "parrot"]) project.copy(`examples/${example}`, example);
  });
  after(() => project.remove());

  test("type-check", () => assert.equal(project.typeCheck(), ""));
  test("pass", () => {
    const { status, report } = project.test("header/*.test.ts", "shout/*.test.ts", "parrot/*.test.ts");
    assert.equal(status, 0, report);
    assert.match(report, /# fail 0\n/);
    assert.ok(Number(/# pass (\d+)/.exec(report)?.[1]) >= 15, report);
  });
});
