import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { recordingUpstream, selfSigned, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { forwardProxy } from "../support/forward-proxy.ts";
import { QUESTION } from "../support/proxied.ts";
import { Sandbox } from "./support/instance.ts";

test("a background instance has the environment's proxy and certificates", { timeout: 60_000 }, async () => {
  const certificate = selfSigned();
  await using upstream = await recordingUpstream({
    tls: certificate,
    script: wholeReply({ status: 200, body: '{"ok":1}' }),
  });
  await using proxy = await forwardProxy({ hosts: { "api.example.test:443": upstream.port } });
  const provider = (base: string): string =>
    `[providers.anthropic]\nauth = "client"\napi_base = "${base}"\ntls_server_name = "localhost"\n`;
  await using box = new Sandbox(provider("https://api.example.test"), {
    HTTPS_PROXY: `http://${proxy.host}`,
    NO_PROXY: "other.test",
  });
  const file = join(box.folder, "company.pem");
  writeFileSync(file, certificate.cert);
  box.env["NODE_EXTRA_CA_CERTS"] = file;
  const started = await box.run("start");
  assert.equal(started.status, 0, started.stderr);
  const at = /proxy +(http:\S+)/.exec(started.stdout)?.[1];
  const reply = await fetch(`${at}/v1/messages`, { method: "POST", body: QUESTION });
  assert.equal(reply.status, 200, await reply.text());
  assert.equal(proxy.asked[0]?.target, "api.example.test:443");
  assert.equal((await box.run("stop")).status, 0);
});
