import {
  type ContributionKind,
  type Contributions,
  nearest,
  type RegistryView,
  TokenmanError,
} from "@tokenman/plugin-sdk";

interface Contribution {
  readonly plugin: string;
  readonly name: string;
  readonly value: unknown;
}

/** All kinds there are: one that nobody reads would be contributed in vain. */
const KINDS: Readonly<Record<ContributionKind, true>> = {
  format: true,
  dialect: true,
  provider: true,
  route: true,
  metric: true,
  panel: true,
  health: true,
  hookObserver: true,
  alertSink: true,
};

/** What the plugins of a generation contributed; see {@link RegistryView}. */
export class ContributionRegistry implements RegistryView {
  readonly #kinds = new Map<ContributionKind, Contribution[]>();
  readonly #values = new Map<ContributionKind, readonly unknown[]>();
  readonly #order: readonly string[];

  /** `order`: the plugins' names as a request passes them; contributions are listed so, whoever was set up first. */
  constructor(order: readonly string[] = []) {
    this.#order = order;
  }

  /** Throws TM_PLUGIN_SETUP for what is no contribution, and TM_CONTRIBUTION_DUPLICATE, naming both plugins. */
  add<K extends ContributionKind>(plugin: string, kind: K, value: Contributions[K]): void {
    checkKind(kind, value, plugin);
    const entries = this.#kinds.get(kind) ?? [];
    if (kind === "provider") checkProvider(value as Contributions["provider"], plugin);
    const names = identities(kind, value, plugin);
    for (const name of names) {
      const earlier = entries.find((entry) => entry.name === name);
      if (earlier === undefined) continue;
      const message = `${kind} "${name}" is contributed twice: by "${earlier.plugin}" and by "${plugin}"`;
      throw new TokenmanError("TM_CONTRIBUTION_DUPLICATE", message, { plugin });
    }
    for (const name of names) entries.push({ plugin, name, value });
    entries.sort((left, right) => this.#order.indexOf(left.plugin) - this.#order.indexOf(right.plugin));
    this.#kinds.set(kind, entries);
    this.#values.delete(kind);
  }

  all<K extends ContributionKind>(kind: K): readonly Contributions[K][] {
    let values = this.#values.get(kind);
    if (values === undefined) {
      // A route on both ports is entered once for each.
      values = Object.freeze([...new Set((this.#kinds.get(kind) ?? []).map((entry) => entry.value))]);
      this.#values.set(kind, values);
    }
    return values as readonly Contributions[K][];
  }

  /** The contributions of one kind with the plugins they are from. */
  owned<K extends ContributionKind>(
    kind: K,
  ): readonly { readonly plugin: string; readonly value: Contributions[K] }[] {
    return (this.#kinds.get(kind) ?? []) as never;
  }

  /** What was contributed, by kind, name and plugin. */
  list(): { readonly kind: ContributionKind; readonly name: string; readonly plugin: string }[] {
    return [...this.#kinds].flatMap(([kind, entries]) =>
      entries.map(({ name, plugin }) => ({ kind, name, plugin })),
    );
  }

  /** A plugin may have stored its `host`; after this it keeps no other plugin's code in memory. */
  clear(): void {
    this.#kinds.clear();
    this.#values.clear();
  }
}

function checkKind(kind: unknown, value: unknown, plugin: string): void {
  let problem: string | undefined;
  if (!Object.hasOwn(KINDS, String(kind))) {
    const near = nearest(String(kind), Object.keys(KINDS));
    const hint = near === undefined ? "" : ` Did you mean "${near}"?`;
    problem = `contributed a "${String(kind)}", which is no kind of contribution; there are ${Object.keys(KINDS).join(", ")}.${hint}`;
  } else if (typeof value !== "object" || value === null)
    problem = `contributed ${value === null ? "null" : `a ${typeof value}`} as ${kind}; expected an object`;
  if (problem !== undefined)
    throw new TokenmanError("TM_PLUGIN_SETUP", `plugin "${plugin}" ${problem}`, { plugin });
}

/** A provider's name stands in a header of every reply, in metrics and in paths. */
const PROVIDER_NAME = /^[\x21-\x7e]{1,64}$/;

/**
 * Throws TM_PLUGIN_SETUP: a base that is no URL would fail every request, and the reload that is to mend it; a name that
 * no header can carry would break every reply.
 */
function checkProvider({ name, apiBase, answer }: Contributions["provider"], plugin: string): void {
  if (!PROVIDER_NAME.test(name)) {
    throw new TokenmanError(
      "TM_PLUGIN_SETUP",
      `plugin "${plugin}": a provider's name is 1 to 64 visible ASCII characters without spaces; found ${JSON.stringify(name)}`,
      { plugin },
    );
  }
  if (apiBase === undefined && typeof answer === "function") return;
  if (typeof apiBase === "string" && /^https?:$/.test(URL.parse(apiBase)?.protocol ?? "")) return;
  const found = apiBase === undefined ? "neither" : JSON.stringify(apiBase);
  throw new TokenmanError(
    "TM_PLUGIN_SETUP",
    `plugin "${plugin}": provider "${name}" needs an http or https URL as apiBase, or answer(); found ${found}`,
    { plugin },
  );
}

function identities<K extends ContributionKind>(kind: K, value: Contributions[K], plugin: string): string[] {
  switch (kind) {
    case "route": {
      const { port, method, path } = value as Contributions["route"];
      // What a parameter is called makes no other path.
      const shape = path.replace(/:[^/]+/g, ":");
      return (port === "both" ? ["proxy", "dashboard"] : [port]).map((each) => `${each} ${method} ${shape}`);
    }
    case "panel":
      return [(value as Contributions["panel"]).id];
    case "hookObserver":
      return [plugin];
    default:
      return [(value as { readonly name: string }).name];
  }
}
