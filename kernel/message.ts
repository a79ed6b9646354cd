import { IncomingMessage } from "node:http";
import { headerValue, headerValues } from "@tokenman/plugin-sdk";

const { get: all, set: replace } =
  Object.getOwnPropertyDescriptor(IncomingMessage.prototype, "headers") ?? {};

/**
 * A request as the listener takes it. Of each request of HTTP/1.1, Node looks up two of its `headers` before it hands it
 * over, and makes for that an object of all of them, under names that it interns: about one microsecond of the ten
 * that it takes to answer anything. So it is shown those two. Whoever asks after that has them all, and may put others in
 * their place; the kernel reads `rawHeaders`.
 *
 * "After that" is what `taken` says. Whoever handles the server's other events (upgrade, connect, an expectation) and asks for
 * more than the two sets it there; until then its `headers` are the glance.
 */
export class Message extends IncomingMessage {
  /** Node has handed it over. */
  taken = false;
  glance: Glance | undefined;
}
Object.defineProperty(Message.prototype, "headers", {
  configurable: true,
  get(this: Message): unknown {
    if (all !== undefined && (this.taken || this.httpVersion !== "1.1")) return all.call(this);
    this.glance ??= new Glance(this.rawHeaders);
    return this.glance;
  },
  set(this: Message, headers: unknown) {
    this.taken = true;
    replace?.call(this, headers);
  },
});

/** What Node looks up. */
class Glance {
  readonly #headers: readonly string[];

  constructor(headers: readonly string[]) {
    this.#headers = headers;
  }
  get host(): string | undefined {
    return headerValue(this.#headers, "host");
  }
  get expect(): string | undefined {
    const values = headerValues(this.#headers, "expect");
    return values.length === 0 ? undefined : values.join(", ");
  }
}
