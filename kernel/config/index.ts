export type { Config } from "./config.ts";
export { type AuthConfig, coreSections, isLoopback, type PluginsConfig, type ServerConfig } from "./core.ts";
export type { CoreConfig } from "./core-value.ts";
export { itemPlaces } from "./document.ts";
export { setProjectPlugin } from "./edit.ts";
export { configExample } from "./example.ts";
export {
  defaultFile,
  expandHome,
  parseConfig,
  type RawConfig,
  type ReadOptions,
  readConfig,
  type SalvagedConfig,
  salvageConfig,
} from "./raw.ts";
export { KERNEL, type SectionSpec, sectionsOf } from "./section.ts";
export { isProjectName } from "./unknown.ts";
export {
  type ConfigCheck,
  coreFromRaw,
  type ValidateOptions,
  type Validation,
  validateConfig,
} from "./validate.ts";
