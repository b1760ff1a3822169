/** The schemas of the TOML files, derived from the option table. */
import type { GenericSchema } from "valibot";
import type { SettingSpec, SettingValues } from "./option-spec.ts";
import { mismatch, type Valibot } from "./option-types.ts";
import { CLIENT_SETTINGS, PROCESS_OPTIONS, TUNNEL_OPTIONS } from "./options.ts";
import { isPrintable } from "./printable.ts";
import type { ClientSettings } from "./tunnel-settings.ts";

type Table = Readonly<Record<string, SettingSpec>>;

/** Loads valibot. Most daemons read no file, so they do not load it. */
export async function loadValibot(): Promise<Valibot> {
  return import("valibot");
}

/** Returns the schema of one client's settings. */
export function clientSchema(v: Valibot): GenericSchema<unknown, ClientSettings> {
  return v.pipe(
    table(v),
    v.strictObject(entries(v, CLIENT_SETTINGS)),
    v.transform((fields) => toValues(CLIENT_SETTINGS, fields)),
  ) as GenericSchema<unknown, ClientSettings>;
}

/** Returns the schema of the configuration file. */
export function fileSchema(v: Valibot) {
  const tunnel = v.pipe(
    table(v),
    v.strictObject({
      ...entries(v, TUNNEL_OPTIONS),
      keys: v.optional(named(v, clientSchema(v))),
    }),
    v.transform((fields) => ({
      ...toValues(TUNNEL_OPTIONS, fields),
      clients: fields.keys,
    })),
  );
  return v.pipe(
    v.strictObject({
      ...entries(v, PROCESS_OPTIONS),
      tunnels: v.pipe(
        named(v, tunnel),
        v.check(({ size }) => size > 0, "must have at least one tunnel"),
      ),
    }),
    v.transform((fields) => ({
      process: toValues(PROCESS_OPTIONS, fields),
      tunnels: fields.tunnels,
    })),
  );
}

/** Returns a schema for a table. Lists and dates are objects, too. */
function table(v: Valibot): GenericSchema<unknown, Readonly<Record<string, unknown>>> {
  const isTable = (value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
  return v.custom<Readonly<Record<string, unknown>>>(isTable, mismatch("a table"));
}

/**
 * Returns a schema for a table of named entries. The result is a map: `v.record()` leaves out names that objects have
 * by themselves, such as `constructor`.
 */
function named<Entry>(
  v: Valibot,
  entry: GenericSchema<unknown, Entry>,
): GenericSchema<unknown, ReadonlyMap<string, Entry>> {
  const isName = (text: string) => text !== "" && isPrintable(text);
  return v.pipe(
    table(v),
    v.transform((entries) => new Map<unknown, unknown>(Object.entries(entries))),
    v.map(v.pipe(v.string(), v.check(isName, "must be a name of printable characters")), entry),
  );
}

/** Returns the schema of each setting of a table, by the name of its field. */
function entries(v: Valibot, rows: Table): Record<string, GenericSchema<unknown, unknown>> {
  return Object.fromEntries(
    Object.values(rows).map(({ long, type, required }) => {
      const schema = type.schema(v);
      return [long, required === undefined ? v.optional(schema) : schema];
    }),
  );
}

/** Returns the fields that were given, by the names of the table's rows. */
function toValues<T extends Table>(
  table: T,
  fields: Readonly<Record<string, unknown>>,
): Partial<SettingValues<T>> {
  const given = Object.entries(table)
    .map(([name, { long }]) => [name, fields[long]] as const)
    .filter(([, value]) => value !== undefined);
  return Object.fromEntries(given) as Partial<SettingValues<T>>;
}
