import type { Config } from "../config/index.ts";

/** What a generation reads of the config. */
export type Settings = Pick<Config, "projects" | "section" | "enabled" | "disabled" | "signature">;

/** The project of a request that names none; its pipeline also serves projects the config does not know. */
export const DEFAULT_PROJECT = "default";
