export * from "./captured-log.ts";
export * from "./certificate.ts";
export * from "./gate.ts";
export * from "./host.ts";
export * from "./providers.ts";
export * from "./script.ts";
export * from "./start-kernel.ts";
export * from "./upstream.ts";
