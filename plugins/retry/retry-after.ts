export { retryAfterMs } from "@tokenman/plugin-sdk";
