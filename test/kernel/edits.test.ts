import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Exchange, TokenmanError } from "@tokenman/plugin-sdk";
import { attemptOf, exchangeOn, pipelineOf, type TestPlugin } from "./support/exchanges.ts";

const BODY =
  '{ "texts": ["one", "t\\u0077o", "sealed x"],\t"n": 1.0, "n": 12345678901234567890, "o": {"a":1} }';

/** A plugin that edits in its request hook; asynchronous ones do so behind an await. */
function editor(
  name: string,
  edit: (ex: Exchange) => unknown,
  more: Partial<TestPlugin> & { readonly asynchronous?: boolean } = {},
): TestPlugin {
  return {
    name,
    tap: ({ request }) =>
      request.tap(
        more.asynchronous === true
          ? async (ex) => {
              await null;
              edit(ex);
            }
          : (ex) => void edit(ex),
      ),
    ...more,
  };
}

async function after(plugins: readonly TestPlugin[], body = BODY) {
  const hooks = pipelineOf(plugins);
  const { exchange } = exchangeOn(hooks, body);
  const reply = await hooks.pipeline.request(exchange);
  const sent = () => String(exchange.content.outgoingBody(attemptOf(exchange)).body);
  return { hooks, exchange, reply, sent };
}

const replace = (pointer: string, value: unknown) => (ex: Exchange) =>
  ex.patch([{ op: "replace", pointer, value }]);

describe("an edit", () => {
  it("changes its bytes and no others", async () => {
    const { sent, exchange } = await after([editor("a", (ex) => ex.edit(ex.segments[0]!, 'ONE"'))]);
    assert.equal(sent(), BODY.replace('"one"', '"ONE\\""'));
    assert.equal(exchange.edited, true);
  });

  it("that changes nothing leaves the client's own bytes", async () => {
    const { sent, exchange } = await after([editor("a", (ex) => ex.edit(ex.segments[1]!, "two"))]);
    assert.equal(sent(), BODY);
    assert.equal(exchange.content.outgoingBody(attemptOf(exchange)).edited, false);
  });

  it("is seen by the plugins after it, made by a patch or not", async () => {
    const seen: unknown[] = [];
    const see = editor("see", (ex) => seen.push(ex.segments.map(({ text }) => text)));
    await after([
      editor("a", (ex) => ex.edit(ex.segments[0]!, "ONE"), { asynchronous: true }),
      see,
      editor("b", replace("/texts/1", "patched")),
      see,
    ]);
    assert.deepEqual(seen, [
      ["ONE", "two", "sealed x"],
      ["ONE", "patched", "sealed x"],
    ]);
  });

  it("tells what still stands, and where values are", async () => {
    const stands: Record<string, boolean> = {};
    const places = ["/texts", "/texts/0", "/texts/1", "/o", "/o/a", "/n", "/new"];
    const { exchange } = await after([
      editor("a", (ex) => ex.edit(ex.segments[0]!, "ONE")),
      editor("b", (ex) =>
        ex.patch([
          { op: "remove", pointer: "/texts/1" },
          { op: "add", pointer: "/texts/0", value: "before" },
          { op: "add", pointer: "/o", value: { a: 2 } },
          { op: "add", pointer: "/new", value: 1 },
        ]),
      ),
      editor("see", (ex) => {
        for (const place of places) stands[place] = ex.stands(place);
      }),
    ]);
    assert.deepEqual(stands, {
      "/texts": true,
      "/texts/0": true,
      "/texts/1": false,
      "/o": false,
      "/o/a": false,
      "/n": true,
      "/new": false,
    });
    assert.equal(exchange.node("/n")?.raw(), "12345678901234567890");
    assert.equal(exchange.node("/nothing"), undefined);
    assert.equal(exchange.node("no pointer"), undefined);
  });

  it("of a signed segment, of another request's, or of no text is refused", async () => {
    const codes: string[] = [];
    const catching = (edit: (ex: Exchange) => unknown) =>
      editor("a", (ex) => {
        try {
          edit(ex);
        } catch (error) {
          codes.push((error as TokenmanError).code);
        }
      });
    const other = await after([]);
    const stranger = other.exchange.segments[0]!;
    const { sent } = await after([
      catching((ex) => ex.edit(ex.segments[2]!, "broken")),
      catching((ex) => ex.edit(stranger, "x")),
      catching((ex) => ex.edit({ ...ex.segments[0]! }, "x")),
      catching((ex) => ex.edit(ex.segments[0]!, undefined as never)),
      catching((ex) => ex.patch([{ op: "replace", pointer: "/nowhere", value: 1 }])),
      catching((ex) => ex.patch([{ op: "replace", pointer: "no/pointer", value: 1 }])),
      catching((ex) => ex.patch([{ op: "add", pointer: "/new", value: undefined }])),
      catching((ex) => ex.patch([{ op: "add", pointer: "/new", value: 1n }])),
    ]);
    assert.deepEqual(codes, ["TM_SEGMENT_SEALED", ...Array(7).fill("TM_EDIT_IMPOSSIBLE")]);
    assert.equal(sent(), BODY);
  });

  it("by a patch spares what is signed, and may take away what holds it", async () => {
    const codes: unknown[] = [];
    const tries = ["/texts/2", "/texts/2/inside", "/texts/1", "/texts", "/n"].map((pointer) =>
      editor(pointer, (ex) => {
        try {
          ex.patch([{ op: "replace", pointer, value: "x" }]);
          codes.push("done");
        } catch (error) {
          codes.push((error as TokenmanError).code);
        }
      }),
    );
    await after(tries);
    assert.deepEqual(codes, ["TM_SEGMENT_SEALED", "TM_SEGMENT_SEALED", "done", "done", "done"]);
  });

  it("of several patches is made as a whole or not at all", async () => {
    const { sent } = await after([
      editor("a", (ex) => {
        assert.throws(() =>
          ex.patch([
            { op: "replace", pointer: "/texts/0", value: "half" },
            { op: "remove", pointer: "/nowhere" },
          ]),
        );
        assert.equal(ex.segments[0]!.text, "one");
      }),
    ]);
    assert.equal(sent(), BODY);
  });

  it("takes its value as it is then", async () => {
    const value = { list: [1] };
    const { sent } = await after([editor("a", replace("/o", value))]);
    value.list.push(2);
    assert.equal(sent(), BODY.replace('{"a":1}', '{"list":[1]}'));
  });

  it("is possible in request hooks alone", async () => {
    const codes: string[] = [];
    const tryIt = (ex: Exchange) => {
      try {
        ex.patch([{ op: "remove", pointer: "/n" }]);
      } catch (error) {
        codes.push((error as TokenmanError).code);
      }
    };
    const { hooks, exchange, sent } = await after([
      {
        name: "a",
        tap({ beforeUpstream, lifecycle }) {
          beforeUpstream.tap(tryIt);
          beforeUpstream.tap(async (ex) => {
            await null;
            tryIt(ex);
          });
          lifecycle.for("attemptEnd").tap(tryIt);
        },
      },
    ]);
    const attempt = attemptOf(exchange);
    await hooks.pipeline.beforeUpstream(exchange, attempt);
    attempt.end({ kind: "cancelled" });
    tryIt(exchange);
    assert.deepEqual(codes, Array(4).fill("TM_EDIT_IMPOSSIBLE"));
    assert.equal(sent(), BODY);
  });

  it("from a callback that lost its context counts for the plugin whose hook runs", async () => {
    const { hooks, sent } = await after([
      editor("first", replace("/o", 0)),
      {
        name: "second",
        tap: ({ request }) =>
          request.tap(
            (ex) =>
              new Promise((resolve) => {
                process.nextTick(() => {
                  ex.patch([{ op: "replace", pointer: "/o/a", value: 2 }]);
                  resolve(undefined);
                });
              }),
          ),
      },
    ]);
    assert.equal(sent(), BODY.replace('{"a":1}', "0"));
    assert.deepEqual([hooks.handles["first"]!.failures, hooks.handles["second"]!.failures], [0, 1]);
  });
});

describe("the edits of a tap that fails", () => {
  it("are undone, and only they", async () => {
    for (const asynchronous of [false, true]) {
      const seen: unknown[] = [];
      const { sent, hooks } = await after([
        editor("good", (ex) => ex.edit(ex.segments[0]!, "kept"), { asynchronous }),
        editor(
          "bad",
          (ex) => {
            ex.edit(ex.segments[0]!, "undone");
            ex.patch([{ op: "remove", pointer: "/o" }]);
            throw new Error("after the edits");
          },
          { asynchronous },
        ),
        editor("last", (ex) => seen.push(ex.segments[0]!.text), { asynchronous }),
      ]);
      assert.equal(sent(), BODY.replace("one", "kept"));
      assert.deepEqual(seen, ["kept"]);
      assert.equal(hooks.handles["bad"]!.failures, 1);
    }
  });

  it("and is given up are undone, too", async () => {
    const { sent } = await after([
      {
        name: "hangs",
        hookMs: 5,
        tap: ({ request }) =>
          request.tap(async (ex) => {
            ex.edit(ex.segments[0]!, "undone");
            await new Promise(() => {});
          }),
      },
    ]);
    assert.equal(sent(), BODY);
  });
});

describe("edits that contradict each other", () => {
  const conflict = (asynchronous: boolean, onError: "open" | "closed") => [
    editor("whole", replace("/o", { b: 2 }), { asynchronous }),
    editor("between", (ex) => ex.edit(ex.segments[0]!, "kept"), { asynchronous }),
    editor(
      "inside",
      (ex) => {
        ex.patch([{ op: "replace", pointer: "/o/a", value: 3 }]);
        ex.edit(ex.segments[1]!, "with it");
      },
      { asynchronous, onError },
    ),
    editor("after", replace("/n", 7), { asynchronous }),
  ];

  it("cost the later plugin its edits, and no other, where it fails open", async () => {
    for (const asynchronous of [false, true]) {
      const { sent, hooks, exchange } = await after(conflict(asynchronous, "open"));
      const expected = BODY.replace('{"a":1}', '{"b":2}')
        .replace("one", "kept")
        .replace("12345678901234567890", "7");
      assert.equal(sent(), expected);
      // The next attempt is not told again.
      assert.equal(sent(), expected);
      const failures = Object.entries(hooks.handles).map(([name, { failures }]) => `${name} ${failures}`);
      assert.deepEqual(failures, ["whole 0", "between 0", "inside 1", "after 0"]);
      assert.equal(exchange.segments[1]!.text, "two");
    }
  });

  it("fail the attempt with the plugin's name where it fails closed", async () => {
    const { sent } = await after(conflict(true, "closed"));
    assert.throws(sent, (error: TokenmanError) => {
      assert.deepEqual([error.code, error.plugin], ["TM_EDIT_CONFLICT", "inside"]);
      return true;
    });
  });
});

describe("an attempt's own edits", () => {
  const patching = (name: string, pointer: string, more: Partial<TestPlugin> = {}): TestPlugin => ({
    name,
    tap({ request, beforeUpstream }) {
      request.tap((ex) => ex.patch([{ op: "replace", pointer: "/n", value: "all" }]));
      beforeUpstream.tap((_, attempt) =>
        attempt.patch([{ op: "replace", pointer, value: attempt.provider.name }]),
      );
    },
    ...more,
  });

  it("go over the exchange's, for that attempt alone", async () => {
    const hooks = pipelineOf([patching("alias", "/o")]);
    const { exchange } = exchangeOn(hooks, BODY);
    await hooks.pipeline.request(exchange);
    const sent = [];
    for (const name of ["one", "two"]) {
      const attempt = attemptOf(exchange, name);
      await hooks.pipeline.beforeUpstream(exchange, attempt);
      sent.push(String(exchange.content.outgoingBody(attempt).body));
    }
    const base = BODY.replace("12345678901234567890", '"all"');
    assert.deepEqual(sent, [base.replace('{"a":1}', '"one"'), base.replace('{"a":1}', '"two"')]);
    assert.equal(String(exchange.content.outgoingBody(attemptOf(exchange)).body), base);
  });

  it("are undone with the headers when the tap fails", async () => {
    const hooks = pipelineOf([
      {
        name: "bad",
        tap: ({ beforeUpstream }) =>
          beforeUpstream.tap((_, attempt) => {
            attempt.patch([{ op: "remove", pointer: "/o" }]);
            attempt.headers = ["other", "1"];
            throw new Error("half-way");
          }),
      },
    ]);
    const { exchange } = exchangeOn(hooks, BODY);
    const attempt = attemptOf(exchange);
    assert.equal(await hooks.pipeline.beforeUpstream(exchange, attempt), undefined);
    assert.deepEqual(attempt.headers, ["a", "1"]);
    assert.deepEqual(exchange.content.outgoingBody(attempt), {
      body: exchange.request.rawBody,
      edited: false,
    });
  });

  it("that contradict the exchange's are left out, and a body in a coding stays in it", async () => {
    const hooks = pipelineOf([
      editor("whole", replace("/o", 1)),
      {
        name: "inside",
        tap: ({ beforeUpstream }) =>
          beforeUpstream.tap((_, attempt) => attempt.patch([{ op: "remove", pointer: "/o/a" }])),
      },
    ]);
    const { exchange } = exchangeOn(hooks, BODY);
    await hooks.pipeline.request(exchange);
    const attempt = attemptOf(exchange);
    await hooks.pipeline.beforeUpstream(exchange, attempt);
    assert.equal(String(exchange.content.outgoingBody(attempt).body), BODY.replace('{"a":1}', "1"));
    assert.equal(hooks.handles["inside"]!.failures, 1);
  });
});
