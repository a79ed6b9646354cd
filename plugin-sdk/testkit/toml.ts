/** A section of the config file as a value; or its text. */
export type ConfigTable = { readonly [key: string]: ConfigValue };
export type ConfigValue =
  | string
  | number
  | boolean
  | readonly ConfigValue[]
  | { readonly [key: string]: ConfigValue | undefined }
  | undefined;

/** The TOML document of a table: every top-level key on a line of its own, tables below it inline. */
export function toml(table: ConfigTable): string {
  return Object.entries(table)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${JSON.stringify(key)} = ${tomlValue(value)}\n`)
    .join("");
}

/** `{ security: { pii: table } }` of "security.pii" and its table. */
export function atSection(section: string, table: ConfigTable): ConfigTable {
  return section.split(".").reduceRight<ConfigTable>((inner, name) => ({ [name]: inner }), table);
}

function tomlValue(value: ConfigValue): string {
  // A JSON string is a TOML basic string: every escape that JSON.stringify writes is one of TOML's.
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (Array.isArray(value)) return `[${value.map(tomlValue).join(", ")}]`;
  const members = Object.entries(value ?? {}).filter(([, member]) => member !== undefined);
  return `{ ${members.map(([key, member]) => `${JSON.stringify(key)} = ${tomlValue(member as ConfigValue)}`).join(", ")} }`;
}
