/** What the process that started this one says of it. */
export interface Origin {
  /** Nobody waits for this process to end: it was started by `tokenman start`. */
  readonly background: boolean;
  /** It takes the ports over from the process that started it. */
  readonly successor: boolean;
  /** The descriptor of the line to the process that was started in the foreground, which ends with the last of its successors. */
  readonly line: number | undefined;
  /** Processes that still finish requests when this one serves. */
  readonly before: readonly ProcessRef[];
}

export interface ProcessRef {
  readonly pid: number;
  readonly identity: string;
}

const VARIABLE = "TOKENMAN_ORIGIN";
const BY_HAND: Origin = { background: false, successor: false, line: undefined, before: [] };

/** Reads what the starter says, and takes it out of the environment: it is of this process only. */
export function takeOrigin(env: NodeJS.ProcessEnv): Origin {
  const said = env[VARIABLE];
  delete env[VARIABLE];
  if (said === undefined) return BY_HAND;
  try {
    const { background, successor, line, before } = JSON.parse(said) as Partial<Origin>;
    return {
      background: background === true,
      successor: successor === true,
      line: typeof line === "number" ? line : undefined,
      before: Array.isArray(before) ? before : [],
    };
  } catch {
    return BY_HAND;
  }
}

/** The variable that tells a process that is started what {@link takeOrigin} reads. */
export function originVariable(origin: Partial<Origin>): Record<string, string> {
  return { [VARIABLE]: JSON.stringify(origin) };
}
