import assert from "node:assert/strict";
import { test } from "node:test";
import {
  connectionNamed,
  headerValue,
  headerValues,
  isHopByHop,
  withHeader,
  withoutHeaders,
} from "../../plugin-sdk/src/headers.ts";

const headers = ["Host", "a", "X-Trace", "1", "content-TYPE", "text/plain", "x-trace", "2", "X-TRACE", "3"];

test("a header is found in any case, the first one first", () => {
  assert.equal(headerValue(headers, "Content-Type"), "text/plain");
  assert.equal(headerValue(headers, "X-TRACE"), "1");
  assert.equal(headerValue(headers, "x-trac"), undefined);
  assert.deepEqual(headerValues(headers, "x-Trace"), ["1", "2", "3"]);
  assert.deepEqual(headerValues(headers, "accept"), []);
});

test("names that differ by more than case are different", () => {
  // '@' and '`', '[' and '{', '-' and CR differ by the bit that tells upper from lower case in letters.
  assert.equal(headerValue(["a@b", "1"], "a`b"), undefined);
  assert.equal(headerValue(["a[b", "1"], "a{b"), undefined);
  assert.equal(headerValue(["x_y", "1"], "x-y"), undefined);
});

test("setting a header keeps its place and spelling and leaves one of it", () => {
  assert.deepEqual(withHeader(headers, "x-trace", "9"), [
    "Host",
    "a",
    "X-Trace",
    "9",
    "content-TYPE",
    "text/plain",
  ]);
  assert.deepEqual(withHeader(["A", "1"], "B-c", "2"), ["A", "1", "B-c", "2"]);
  assert.equal(headers.length, 10);
});

test("removing headers keeps the rest as it is, and the same array where there is nothing to remove", () => {
  assert.deepEqual(withoutHeaders(headers, new Set(["x-trace", "host"])), ["content-TYPE", "text/plain"]);
  assert.deepEqual(withoutHeaders(headers, new Set(["content-type"])), [
    "Host",
    "a",
    "X-Trace",
    "1",
    "x-trace",
    "2",
    "X-TRACE",
    "3",
  ]);
  assert.equal(withoutHeaders(headers, new Set(["accept"])), headers);
  assert.equal(withoutHeaders(headers, new Set()), headers);
});

test("fields of one hop are told from fields of the message", () => {
  for (const name of [
    "Connection",
    "KEEP-ALIVE",
    "te",
    "Transfer-Encoding",
    "Upgrade",
    "Proxy-Authorization",
  ]) {
    assert.equal(isHopByHop(name), true, name);
  }
  for (const name of ["Trailer", "Content-Length", "Authorization", "X-Connection"]) {
    assert.equal(isHopByHop(name), false, name);
  }
});

test("names listed in all Connection headers are collected in lower case", () => {
  const listed = connectionNamed(["Connection", "X-One,  close ,", "A", "B", "connection", "X-Two"]);
  assert.deepEqual([...listed], ["x-one", "close", "x-two"]);
  assert.equal(connectionNamed(["A", "B"]).size, 0);
});
