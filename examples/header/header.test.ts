import assert from "node:assert/strict";
import { test } from "node:test";
import { assertBytesEqual, runPlugin } from "@tokenman/plugin-sdk/testkit";
import header from "./index.ts";

const request = { path: "/v1/messages", body: Buffer.from('{"model":"m",  "messages":[]}') };

test("adds its header to what goes upstream, and changes nothing else", async () => {
  await using run = await runPlugin(header, { config: { value: "blue" } });
  const { upstream } = await run.send({
    ...request,
    headers: ["A", "1", "x-team", "red", "B", "2", "X-TEAM", "?"],
  });
  assert.deepEqual(upstream[0]?.headers, ["A", "1", "x-team", "blue", "B", "2"]);
  assertBytesEqual(upstream[0]!.body, request.body);
});

test("a project has its own value, and may have none", async () => {
  const ofProject = (value: string) => ({ plugins: { configs: { header: { value } } } });
  await using run = await runPlugin(header, {
    config: { name: "X-Cost-Centre", value: "default" },
    file: { projects: { mine: ofProject("mine"), none: ofProject("") } },
  });
  const sentBy = async (project?: string) => {
    const { upstream } = await run.send({ ...request, ...(project !== undefined && { project }) });
    return upstream[0]?.header("x-cost-centre");
  };
  assert.equal(await sentBy(), "default");
  assert.equal(await sentBy("mine"), "mine");
  assert.equal(await sentBy("none"), undefined);
  assert.equal(await sentBy("unheard-of"), "default");
});

test("is on every attempt", async () => {
  await using run = await runPlugin(header, { config: { value: "v" }, providers: ["one", "two"] });
  const { upstream } = await run.send(request);
  assert.ok(upstream.every((sent) => sent.header("x-team") === "v"));
});

test("a name or a value that would break the request is refused before anything starts", async () => {
  await assert.rejects(runPlugin(header, { config: { name: "a b" } }), /expected a header's name/);
  await assert.rejects(runPlugin(header, { config: { value: "a\r\nB: c" } }), /without line breaks/);
});
