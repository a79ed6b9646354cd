/**
 * The two parts of undici that the kernel uses, by their own files: its index loads fetch, WebSocket, caches, mocks and
 * Node's own copy of undici with them, for which 12 MB and 20 ms of every start would go.
 */
declare module "undici/lib/dispatcher/client.js" {
  import { Client } from "undici";
  export default Client;
}
declare module "undici/lib/core/connect.js" {
  import { buildConnector } from "undici";
  export default buildConnector;
}
