import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { type AddressInfo, connect } from "node:net";
import { test } from "node:test";
import { Message } from "../../kernel/message.ts";

const TIMEOUT = { timeout: 20_000 };

function take(message: Message): void {
  message.taken = true;
}

/** What a server of such messages answers to these bytes; its replies are the headers that it was asked with. */
async function answerTo(bytes: string, prepare = take): Promise<string> {
  const server = http.createServer({ IncomingMessage: Message }, (message, response) => {
    prepare(message);
    response.write(JSON.stringify(message.headers));
    response.end();
  });
  server.on("checkExpectation", (message, response) => response.writeHead(417).end(message.headers.expect));
  await once(server.listen(0, "127.0.0.1"), "listening");
  const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  let text = "";
  socket.on("data", (chunk: Buffer) => {
    text += chunk.toString("latin1");
  });
  socket.end(bytes);
  await once(socket, "close");
  await new Promise((resolve) => server.close(resolve));
  return text;
}

test("whoever is handed a message has all its headers, as Node tells them", TIMEOUT, async () => {
  const text = await answerTo(
    "GET / HTTP/1.1\r\nHost: here\r\nX-One: 1\r\nx-one: 2\r\nCookie: a\r\ncookie: b\r\nTE: trailers\r\n\r\n",
  );
  assert.deepEqual(JSON.parse(text.split("\r\n\r\n")[1]!.split("\r\n")[1]!), {
    host: "here",
    "x-one": "1, 2",
    cookie: "a; b",
    te: "trailers",
  });
});

test("a message without a Host is refused, an empty one is none", TIMEOUT, async () => {
  assert.match(await answerTo("GET / HTTP/1.1\r\nX: 1\r\n\r\n"), /^HTTP\/1\.1 400 /);
  assert.match(await answerTo("GET / HTTP/1.1\r\nHOST:\r\n\r\n"), /^HTTP\/1\.1 200 /);
});

test("what a message expects is seen, in any spelling and in more than one header", TIMEOUT, async () => {
  const post = (expects: string): string =>
    `POST / HTTP/1.1\r\nHost: here\r\n${expects}Content-Length: 2\r\n\r\nhi`;
  assert.match(
    await answerTo(post("Expect: 100-continue\r\n")),
    /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 /,
  );
  assert.match(await answerTo(post("EXPECT: wonders\r\n")), /^HTTP\/1\.1 417 /);
  assert.match(
    await answerTo(post("Expect: wonders\r\nexpect: 100-continue\r\n")),
    /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 /,
  );
});

test("headers that are put in the place of a message's are what is read from then on", TIMEOUT, async () => {
  const request = "GET / HTTP/1.1\r\nHost: here\r\nX-One: 1\r\n\r\n";
  const told = async (prepare: (message: Message) => void): Promise<unknown> => {
    const text = await answerTo(request, prepare);
    return JSON.parse(text.split("\r\n\r\n")[1]!.split("\r\n")[1]!);
  };
  assert.deepEqual(
    await told((message) => {
      message.taken = true;
      message.headers = { ...message.headers, "x-two": "2" };
    }),
    { host: "here", "x-one": "1", "x-two": "2" },
  );
  assert.deepEqual(
    await told((message) => {
      message.headers = { "x-two": "2" };
    }),
    { "x-two": "2" },
    "nor does the glance come back",
  );
});

test("an older client is asked for its TE", TIMEOUT, async () => {
  const text = await answerTo("GET / HTTP/1.0\r\nTE: chunked\r\n\r\n");
  assert.match(text, /\r\nTransfer-Encoding: chunked\r\n/);
  assert.doesNotMatch(await answerTo("GET / HTTP/1.0\r\n\r\n"), /Transfer-Encoding/);
});
