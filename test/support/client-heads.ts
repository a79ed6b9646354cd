/** The heads of a client of each vendor with a key, alone and in a session. */
export const ANTHROPIC_KEY = ["Content-Type", "application/json", "x-api-key", "sk-ant-api03-test"];
export const OPENAI_KEY = ["Content-Type", "application/json", "Authorization", "Bearer sk-test"];
export const ANTHROPIC = [...ANTHROPIC_KEY, "x-claude-code-session-id", "s"];
export const OPENAI = [...OPENAI_KEY, "session_id", "s"];
