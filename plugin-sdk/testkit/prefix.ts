import { type JsonNode, parseIndex } from "../src/json-index.ts";
import { assertBytesStart } from "./bytes.ts";
import type { Turn } from "./conversation.ts";

/** Sends one turn through whatever is tested, and gives the body that reached the provider. */
export type SendTurn = (turn: Turn) => Promise<Buffer>;

/**
 * Sends the turns of a growing conversation and asserts that a provider's prompt cache stays warm over them: what is
 * sent at one turn, from its first byte to the end of its last message, stands at the beginning of what is sent at the
 * next. A `cache_control` inside the messages is left out of the comparison, as it moves with the newest message.
 * `isCut` is asked after each turn whether a plugin noted that it cuts the conversation there (`breaksPrefix` of its
 * `Rewrite`): what follows is then compared from that turn on. Throws AssertionError with the place of the first
 * difference. Gives what was sent.
 */
export async function assertPrefixStable(
  turns: readonly Turn[],
  send: SendTurn,
  isCut: (turn: Turn) => boolean = () => false,
): Promise<readonly Buffer[]> {
  const sent: Buffer[] = [];
  let before: Buffer | undefined;
  for (const turn of turns) {
    const body = await send(turn);
    sent.push(body);
    const { bytes, prefixBytes } = withoutBreakpoints(body);
    if (before !== undefined && !isCut(turn)) {
      const what = `${turn.dialect}: turn ${turn.number} does not begin with what turn ${turn.number - 1} sent,`;
      assertBytesStart(bytes, before, what);
    }
    before = bytes.subarray(0, prefixBytes);
  }
  return sent;
}

/**
 * What a provider can take from its prompt cache at the next turn: the body from its first byte to the end of its last
 * message, without the cache breakpoints within messages. Throws JsonSyntaxError, or TypeError where the body has no
 * list of messages.
 */
export function cachedPrefix(body: Buffer): Buffer {
  const { bytes, prefixBytes } = withoutBreakpoints(body);
  return bytes.subarray(0, prefixBytes);
}

/** The body without the breakpoints within messages, and how many of its bytes end with the last message. */
function withoutBreakpoints(body: Buffer): { readonly bytes: Buffer; readonly prefixBytes: number } {
  const root = parseIndex(body);
  const list = root.get("messages") ?? root.get("input");
  const last = list?.items().at(-1);
  if (list === undefined || last === undefined)
    throw new TypeError("the body has no list of messages, or an empty one");
  const parts: Buffer[] = [];
  let from = 0;
  let removed = 0;
  for (const [start, end] of breakpoints(list)) {
    parts.push(body.subarray(from, start));
    from = end;
    removed += end - start;
  }
  parts.push(body.subarray(from));
  return { bytes: Buffer.concat(parts), prefixBytes: last.end - removed };
}

/** The byte ranges of all `cache_control` members below `node`, each with the comma that goes with it. */
function breakpoints(node: JsonNode): [start: number, end: number][] {
  const ranges: [number, number][] = [];
  const members = node.entries();
  members.forEach((member, index) => {
    if (member.key !== "cache_control") ranges.push(...breakpoints(member.value));
    else if (index > 0) ranges.push([members[index - 1]!.value.end, member.value.end]);
    else ranges.push([member.keyStart, members[1]?.keyStart ?? member.value.end]);
  });
  for (const item of node.items()) ranges.push(...breakpoints(item));
  return ranges;
}
