/**
 * The two parts of undici that the kernel uses, by their own files: its index loads fetch, WebSocket, caches and mocks
 * with them, some 4 MB in every process.
 */
declare module "undici/lib/dispatcher/client.js" {
  import { Client } from "undici";
  export default Client;
}
declare module "undici/lib/core/connect.js" {
  import { buildConnector } from "undici";
  export default buildConnector;
}
