import assert from "node:assert/strict";
import { createPrivateKey } from "node:crypto";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import {
  chunkBytes,
  gate,
  headBytes,
  type RecordingUpstream,
  recordingUpstream,
  selfSigned,
  steps,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { providerTable, reaching, summary } from "../support/proxied.ts";
import { isWholeChunked, statusOf } from "../support/raw-client.ts";

const limits = { timeout: 20_000 };
const OK = wholeReply({ status: 200, body: '{"ok":1}' });
const server = selfSigned();
const client = selfSigned();
const folder = await mkdtemp(join(tmpdir(), "provider-tls-"));
after(() => rm(folder, { recursive: true }));
const file = async (name: string, text: string): Promise<string> => {
  const path = join(folder, name);
  await writeFile(path, text, { mode: 0o600 });
  return path;
};
const ca = await file("ca.pem", `# the company's\n${server.cert}`);
const cert = await file("client.pem", client.cert);
const key = await file("client.key", client.key);
const locked = await file(
  "locked.key",
  createPrivateKey(client.key)
    .export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "open sesame" })
    .toString(),
);
const otherKey = await file("other.key", server.key);
const noise = await file("noise.pem", "not a certificate");
const broken = await file("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");

/** Demands the client's certificate. */
function mutual(maxVersion: "TLSv1.2" | "TLSv1.3"): Promise<RecordingUpstream> {
  const demands = { requestCert: true, rejectUnauthorized: true, ca: [client.cert], maxVersion };
  return recordingUpstream({ tls: { ...server, ...demands }, script: OK });
}

test(
  "fault 15: a certificate that is not trusted fails at once, and the same provider is not asked again",
  limits,
  async () => {
    await using upstream = await recordingUpstream({ tls: server, script: OK });
    await using it = await reaching({ provider: { api_base: upstream.url }, also: ["retry"] });
    assert.equal(statusOf(await it.reply()), 502);
    const settled = await it.outcomes.settled(1);
    assert.equal(summary(settled), "refused 502 TM_UPSTREAM_TLS");
    assert.equal(settled.attempts.length, 1);
    assert.ok(settled.attempts[0]!.result?.kind === "error" && !settled.attempts[0]!.result.bytesSent);
    assert.equal(upstream.requests.length, 0);
  },
);

test("fault 15: neither is a certificate of another name, nor one that has expired", limits, async () => {
  const old = selfSigned({ notAfter: new Date(Date.now() - 1000) });
  await using expired = await recordingUpstream({ tls: old, script: OK });
  await using upstream = await recordingUpstream({ tls: server, script: OK });
  for (const provider of [
    { api_base: upstream.url, ca_file: ca, tls_server_name: "api.example.test" },
    { api_base: expired.url, ca_file: await file("old.pem", old.cert) },
  ]) {
    await using it = await reaching({ provider, also: ["retry"] });
    assert.equal(statusOf(await it.reply()), 502);
    const settled = await it.outcomes.settled(1);
    assert.equal(summary(settled), "refused 502 TM_UPSTREAM_TLS");
    assert.equal(settled.attempts.length, 1);
  }
});

test("ca_file adds to what is trusted", limits, async () => {
  await using upstream = await recordingUpstream({ tls: server, script: OK });
  await using it = await reaching({ provider: { api_base: upstream.url, ca_file: ca } });
  assert.equal(statusOf(await it.reply()), 200);
});

test("a provider that demands a certificate gets it, its key encrypted or not", limits, async () => {
  await using upstream = await mutual("TLSv1.3");
  process.env["PROVIDER_TLS_PASSPHRASE"] = "open sesame";
  const base = { api_base: upstream.url, ca_file: ca, client_cert_file: cert };
  const passphrase = await file("passphrase", "open sesame\n");
  for (const provider of [
    { ...base, client_key_file: key },
    { ...base, client_key_file: locked, client_key_passphrase_ref: "env:PROVIDER_TLS_PASSPHRASE" },
    { ...base, client_key_file: locked, client_key_passphrase_ref: `file://${passphrase}` },
  ]) {
    await using it = await reaching({ provider });
    assert.equal(statusOf(await it.reply()), 200);
    const shown = JSON.stringify([it.tokenman.log, it.tokenman.kernel.config.redacted()]);
    assert.ok(!shown.includes("PRIVATE KEY") && !shown.includes("sesame"));
  }
  for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
    await using strict = await mutual(version);
    await using it = await reaching({ provider: { api_base: strict.url, ca_file: ca } });
    assert.equal(statusOf(await it.reply()), 502);
    const said = summary(await it.outcomes.settled(1));
    // In TLS 1.3 the refusal comes after the handshake, and the reset behind it may overtake it.
    if (version === "TLSv1.2") assert.equal(said, "refused 502 TM_UPSTREAM_TLS");
    else assert.match(said, /^refused 502 TM_UPSTREAM_(TLS|RESET)$/);
  }
});

test(
  "files that cannot be used are named when the config is read, all at once, each with its place",
  limits,
  async () => {
    const base = { api_base: "https://api.example.test" };
    const cases: [Record<string, string>, RegExp][] = [
      [
        { ...base, ca_file: join(folder, "none.pem") },
        /anthropic\.ca_file: expected a file that can be read, found ENOENT/,
      ],
      [{ ...base, ca_file: folder }, /ca_file: expected a file that can be read, found EISDIR/],
      [{ ...base, ca_file: noise }, /ca_file: expected certificates in PEM, found none/],
      [{ ...base, ca_file: broken }, /ca_file: expected certificates in PEM; number 1 .* is broken/],
      [{ ...base, client_cert_file: cert }, /client_cert_file: expected client_key_file beside it/],
      [{ ...base, client_key_file: key }, /client_key_file: expected client_cert_file beside it/],
      [{ ...base, client_cert_file: cert, client_key_file: otherKey }, /client_key_file: .* is another one/],
      [{ ...base, client_cert_file: cert, client_key_file: noise }, /client_key_file: .* is none/],
      [{ ...base, client_cert_file: cert, client_key_file: locked }, /client_key_file: .* is encrypted/],
      [
        {
          ...base,
          client_cert_file: cert,
          client_key_file: key,
          client_key_passphrase_ref: "env:NOT_SET_ANYWHERE",
        },
        /client_key_passphrase_ref: the variable NOT_SET_ANYWHERE is not set/,
      ],
      [
        { ...base, client_key_passphrase_ref: "hunter2" },
        /client_key_passphrase_ref: expected env:NAME or file:/,
      ],
      [{ ...base, tls_server_name: "a b" }, /tls_server_name: expected a host name/],
      [{ api_base: "http://api.example.test", ca_file: ca }, /ca_file: expected an api_base with https:/],
    ];
    for (const [provider, expected] of cases) {
      await assert.rejects(reaching({ provider }), (error: Error) => {
        assert.match(error.message, expected);
        assert.match(error.message, /tokenman\.toml:\d+:\d+/, String(expected));
        assert.doesNotMatch(error.message, /hunter2/);
        return true;
      });
    }
    await assert.rejects(
      reaching({ provider: { ...base, ca_file: noise, client_cert_file: broken, client_key_file: key } }),
      (error: Error) => /ca_file: /.test(error.message) && /client_cert_file: /.test(error.message),
    );
  },
);

test("a key that everybody can read is told in the log", limits, async () => {
  const open = await file("open.key", client.key);
  await chmod(open, 0o644);
  await using it = await reaching({
    provider: { api_base: "https://api.example.test", client_cert_file: cert, client_key_file: open },
  });
  assert.ok(
    it.tokenman.log.some(({ level, message }) => level === "warn" && /chmod 600/.test(message ?? "")),
  );
});

test(
  "a reload changes what is trusted for new connections, and cuts none that is in use",
  limits,
  async () => {
    await using upstream = await recordingUpstream({ tls: server, script: OK });
    const rest = gate();
    const table = (caFile: string): string => providerTable({ api_base: upstream.url, ca_file: caFile });
    await using it = await reaching({ provider: { api_base: upstream.url, ca_file: ca } });
    const head = headBytes(200, ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"]);
    upstream.next(
      steps(head, chunkBytes("event: a\n\n"), rest.opened, chunkBytes("event: b\n\n"), chunkBytes("")),
    );
    const streaming = await it.ask();
    await streaming.until("event: a");

    const { readFile } = await import("node:fs/promises");
    const written = await readFile(it.tokenman.configFile, "utf8");
    const swap = async (caFile: string) => {
      await writeFile(
        it.tokenman.configFile,
        written.replace(/\[providers\.anthropic\][^[]*/, `${table(caFile)}\n`),
      );
      return it.tokenman.reload("test");
    };
    assert.equal((await swap(cert)).ok, true, "another authority, which did not sign the server's");
    assert.match(await it.reply(), /TM_UPSTREAM_TLS|certificate/);
    const failed = await swap(noise);
    assert.equal(failed.ok, false, "the old generation stays");

    await writeFile(join(dirname(it.tokenman.configFile), "beside.pem"), server.cert);
    assert.equal((await swap("beside.pem")).ok, true, "a relative path counts from the config's folder");
    assert.equal(statusOf(await it.reply()), 200);

    rest.open();
    await streaming.ended;
    assert.ok(isWholeChunked(streaming.text) && streaming.text.includes("event: b"));
    assert.equal((await swap(ca)).ok, true);
    assert.equal(statusOf(await it.reply()), 200);
  },
);
