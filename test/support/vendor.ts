import type { Provider } from "@tokenman/plugin-sdk";
import mock from "../../plugins/mock/index.ts";
import { askProvider } from "./ask-provider.ts";
import { setUp } from "./fake-setup.ts";
import type { Script } from "./upstream.ts";

const setup = await setUp(mock, { config: { retry_after_seconds: 0 } });
const provider = setup.contributed("provider")[0] as Provider;

/** Models of the vendor that {@link vendor} plays: the mock's, under names that do not lead to the embedded one. */
export const REMOTE = "remote-";

/** A vendor's server, played over HTTP by the mock: the model `remote-mock-tools` answers as `mock-tools` does. */
export const vendor: Script = async (call) => {
  await call.received;
  const { method, target, headers, body } = call.request;
  const text = body.toString("latin1").replaceAll(`"${REMOTE}`, '"');
  try {
    await call.reply(
      await askProvider(provider, { method, path: target, headers, body: Buffer.from(text, "latin1") }),
    );
  } catch {
    // A model that breaks off in the middle.
    call.socket.destroy();
  }
};
