/** Names a typed capability that one plugin provides and others need. Compared by `name@major`. */
export interface ServiceToken<T> {
  readonly name: string;
  readonly major: number;
  readonly type?: T;
}

/** A need that may stay unmet. */
export interface OptionalNeed<T> {
  readonly optional: ServiceToken<T>;
}

export type Need<T = unknown> = ServiceToken<T> | OptionalNeed<T>;

/** Makes a token. Tokens of the same name and major version are the same service, wherever they were made. */
export function service<T>(name: string, major = 1): ServiceToken<T> {
  return Object.freeze({ name, major });
}

/** Marks a need as optional: the plugin loads without it and finds `undefined`. */
export function optional<T>(token: ServiceToken<T>): OptionalNeed<T> {
  return Object.freeze({ optional: token });
}

/** "name@major": how tokens are compared. */
export function serviceKey(token: ServiceToken<unknown>): string {
  return `${token.name}@${token.major}`;
}

/** What `setup` finds in `ctx.services` for a plugin's `needs`. */
export type Services<N extends Readonly<Record<string, Need>>> = {
  readonly [K in keyof N]: N[K] extends OptionalNeed<infer T>
    ? T | undefined
    : N[K] extends ServiceToken<infer T>
      ? T
      : never;
};
