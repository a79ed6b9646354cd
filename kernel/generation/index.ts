export { buildGeneration, type GenerationOptions, type HostBase } from "./build.ts";
export { type ExplainedPlugin, type Explanation, explain, explainPlan } from "./explain.ts";
export { explanationText } from "./explain-text.ts";
export { Generation } from "./generation.ts";
export { KeepStore } from "./keep.ts";
export { GenerationManager, type GenerationManagerOptions, type Held } from "./manager.ts";
export { type Plan, planGeneration } from "./plan.ts";
export { DEFAULT_PROJECT, type Settings } from "./settings.ts";
