import {
  chunkBytes,
  gate,
  headBytes,
  providersAt,
  recordingUpstream,
  steps,
} from "@tokenman/plugin-sdk/testkit";
import { MESSAGE, STOP } from "../../support/faulty.ts";
import { type RawClient, rawClient, requestBytes } from "../../support/raw-client.ts";

/** A provider whose streams go on until the test ends them. */
export interface HeldStreams extends AsyncDisposable {
  /** For the config file: this provider in the place of the vendors. */
  readonly config: string;
  /** Asks for a stream; resolves when its first event has come. */
  begin(proxy: string): Promise<RawClient>;
  /** Lets all that have begun end as they should. */
  end(): void;
}

export async function heldStreams(): Promise<HeldStreams> {
  const upstream = await recordingUpstream();
  const end = gate();
  upstream.script(
    steps(
      headBytes(200, ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"]),
      chunkBytes("event: a\n\n"),
      end.opened,
      chunkBytes(STOP),
      chunkBytes(""),
    ),
  );
  return {
    config: providersAt(upstream.url),
    async begin(proxy) {
      const client = await rawClient(proxy);
      await client.send(requestBytes({ body: MESSAGE }));
      await client.until("event: a");
      return client;
    },
    end: () => end.open(),
    async [Symbol.asyncDispose]() {
      end.open();
      await upstream.stop();
    },
  };
}
