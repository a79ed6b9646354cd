import type { CliCommand } from "./command.ts";

const CONFIG = {
  flag: "--config <file>",
  description: "The config file (else TOKENMAN_CONFIG, else ~/.tokenman/tokenman.toml)",
};
const PLUGINS = {
  flag: "--plugins <list>",
  description:
    'Features to load, in this order ("a,b,./c.ts", or "none"), or edits of the config\'s ("+./c.ts,-b")',
};
const JSON_OUTPUT = { flag: "--json", description: "Print JSON" };

/** The CLI's own commands. What each of them does is loaded when it is run. */
export const builtInCommands: readonly CliCommand[] = [
  {
    usage: "start",
    description: "Start TokenMan in the background, and wait until it is ready",
    options: [
      { flag: "--foreground", description: "Stay in the foreground; log to the terminal" },
      CONFIG,
      PLUGINS,
      { flag: "--timeout <seconds>", description: "How long to wait until it is ready", default: 15 },
    ],
    examples: [
      "tokenman start",
      "tokenman start --foreground --config ./tokenman.toml",
      "tokenman start --plugins +./my-plugin.ts",
    ],
    run: async (invocation) => (await import("./start.ts")).start(invocation),
  },
  {
    usage: "stop",
    description: "Stop it: requests in flight are finished first",
    options: [CONFIG, { flag: "--timeout <seconds>", description: "How long they may take", default: 30 }],
    examples: ["tokenman stop", "tokenman stop --timeout 5"],
    run: async (invocation) => (await import("./stop.ts")).stop(invocation),
  },
  {
    usage: "restart",
    description: "Replace the running process by a new one, without refusing or cutting a request",
    options: [
      CONFIG,
      {
        flag: "--timeout <seconds>",
        description: "How long the new process may take to be ready; the old one serves on if it is not",
        default: 30,
      },
      {
        flag: "--drain <seconds>",
        description: "How long the old process may finish its requests",
        default: 3600,
      },
    ],
    examples: ["tokenman restart", "/opt/tokenman-next/bin/tokenman restart"],
    run: async (invocation) => (await import("./restart.ts")).restart(invocation),
  },
  {
    usage: "reload",
    description: "Load config and plugins anew; requests in flight keep what they began with",
    options: [CONFIG, JSON_OUTPUT],
    examples: ["tokenman reload"],
    run: async (invocation) => (await import("./reload.ts")).reload(invocation),
  },
  {
    usage: "status",
    description: "Show whether it runs, where, and how it is",
    options: [CONFIG, JSON_OUTPUT],
    examples: ["tokenman status", "tokenman status --json"],
    run: async (invocation) => (await import("./status.ts")).status(invocation),
  },
  {
    usage: "plugins",
    description: "Show which plugins the config loads, and in which order a request passes them",
    options: [
      {
        flag: "--explain",
        description: "Every hook's order, who provides which service, what is off and why",
      },
      { flag: "--project <name>", description: "As it is for this project" },
      PLUGINS,
      CONFIG,
      JSON_OUTPUT,
    ],
    examples: ["tokenman plugins --explain", "tokenman plugins --explain --project web"],
    run: async (invocation) => (await import("./plugins.ts")).plugins(invocation),
  },
  {
    usage: "project <name> <action> <plugin>",
    description: "Enable or disable a plugin for one project, in the config file",
    options: [CONFIG],
    examples: ["tokenman project web disable access-log", "tokenman project web enable access-log"],
    run: async (invocation) => (await import("./project.ts")).project(invocation),
  },
  {
    usage: "init-config",
    description: "Write a config file with every setting, its default and what it means",
    options: [
      { flag: "--config <file>", description: "Where to write it (else as for start)" },
      { flag: "--force", description: "Replace an existing file, which is kept as FILE.bak" },
    ],
    examples: ["tokenman init-config", "tokenman init-config --config ./tokenman.toml"],
    run: async (invocation) => (await import("./init-config.ts")).initConfig(invocation),
  },
  {
    usage: "version",
    description: "Print the version",
    options: [JSON_OUTPUT],
    examples: ["tokenman version"],
    run: async ({ print, options }) => {
      const { VERSION } = await import("./version.ts");
      const { version: node, platform, arch } = process;
      if (options["json"] === true) print(JSON.stringify({ version: VERSION, node, platform, arch }));
      else print(`tokenman ${VERSION} (node ${node}, ${platform} ${arch})`);
    },
  },
];
