/** The constant part of a coding agent's request: a system prompt and tool definitions of ordinary size. */

export interface ToolDefinition {
  name: string;
  description: string;
  parameters: Record<string, unknown>;
}

const RULES = [
  "Read a file before you change it, and read the parts around the change, not the change alone.",
  "Prefer the smallest change that solves the whole task; leave unrelated code as it is.",
  "Run the project's own checks after each change and mend what they report before going on.",
  "Say what you are about to do in one sentence, then do it; do not repeat file contents back.",
  "When a command fails, read its output in full and find the cause before trying anything else.",
  "Never delete files that you did not create unless the user asked for it in so many words.",
  "Keep secrets out of output: if a file holds credentials, name the file and the key, never the value.",
  "Use absolute paths in tool calls; paths in prose are relative to the working directory.",
  "If the task is ambiguous and a wrong guess would cost much, ask one short question; else pick and go on.",
  "When you finish, report what changed, what was tested and what remains, in a few lines.",
];

/** About 4 KB of instructions, the same in every request. */
export const SYSTEM_PROMPT = [
  "You are a coding agent working in a user's repository through the tools below.",
  "Working directory: /home/dev/project. Platform: linux. Shell: bash.",
  ...Array.from({ length: 4 }, (_, part) =>
    [`## Part ${part + 1}`, ...RULES.map((rule, index) => `${part + 1}.${index + 1} ${rule}`)].join("\n"),
  ),
].join("\n\n");

function objectSchema(properties: Record<string, [type: string, description: string]>, required: string[]) {
  return {
    type: "object",
    properties: Object.fromEntries(
      Object.entries(properties).map(([name, [type, description]]) => [name, { type, description }]),
    ),
    required,
    additionalProperties: false,
  };
}

export const TOOLS: readonly ToolDefinition[] = [
  {
    name: "read",
    description:
      "Read a text file. Returns its lines, numbered from 1. Long files are cut: pass offset and limit to read on from where the answer ended.",
    parameters: objectSchema(
      {
        path: ["string", "Path of the file, absolute or relative to the working directory"],
        offset: ["integer", "First line to return, from 1"],
        limit: ["integer", "How many lines to return at most"],
      },
      ["path"],
    ),
  },
  {
    name: "bash",
    description:
      "Run a command in bash in the working directory. Returns standard output and standard error together, and the exit code when it is not 0.",
    parameters: objectSchema(
      {
        command: ["string", "The command line"],
        timeoutSeconds: ["integer", "End the command after so many seconds"],
      },
      ["command"],
    ),
  },
  {
    name: "edit",
    description:
      "Replace one passage of a file. The old text must occur exactly once, white space included; the answer shows the lines as they are afterwards.",
    parameters: objectSchema(
      {
        path: ["string", "Path of the file"],
        oldText: ["string", "The passage to replace, exactly as it is in the file"],
        newText: ["string", "What to put in its place"],
      },
      ["path", "oldText", "newText"],
    ),
  },
  {
    name: "write",
    description: "Create a file or overwrite it whole. Missing folders are made.",
    parameters: objectSchema(
      { path: ["string", "Path of the file"], content: ["string", "The whole content"] },
      ["path", "content"],
    ),
  },
];
