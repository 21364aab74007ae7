/** Forms from JSON Schema: what the API's description says of each job type's payload. */
import type { Json } from "../api/types";

export type Schema = {
  type?: string;
  title?: string;
  description?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  enum?: Json[];
  const?: Json;
  default?: Json;
  anyOf?: Schema[];
  items?: Schema;
  minimum?: number;
  maximum?: number;
  maxLength?: number;
  $ref?: string;
};
export type Description = { components: { schemas: Record<string, Schema> } };

export type JobType = { type: string; queue: string; about: string; fields: Field[] };
export type Field = {
  name: string;
  kind: "text" | "number" | "choice" | "switch" | "json";
  required: boolean;
  about: string;
  choices: Json[];
  initial: Json | undefined;
  schema: Schema;
};

const PREFIX = "job.";
const LONG_CHARS = 1_000;

/** All job types of the description, by name. */
export function jobTypes({ components: { schemas } }: Description): JobType[] {
  return Object.entries(schemas)
    .filter(([name]) => name.startsWith(PREFIX))
    .map(([name, schema]) => {
      const type = name.slice(PREFIX.length);
      const about = schema.description ?? "";
      const queue = /Queue `([^`]+)`/.exec(about)?.[1] ?? type.split(".")[0] ?? type;
      const payload = resolved(schema.properties?.payload ?? {}, schemas);
      return {
        type,
        queue,
        about: about.replace(/\s*Queue `[^`]+`\.?/, ""),
        fields: fieldsOf(payload, schemas),
      };
    })
    .sort((a, b) => (a.type < b.type ? -1 : 1));
}

/** The payload of what was typed, by field; what was left empty is left out. Throws SyntaxError for bad JSON. */
export function payloadOf(fields: Field[], typed: Record<string, string>): Record<string, Json> {
  const payload: Record<string, Json> = {};
  for (const { name, kind } of fields) {
    const text = typed[name] ?? "";
    if (text === "") continue;
    if (kind === "json") payload[name] = parsed(name, text);
    else if (kind === "number") payload[name] = Number(text);
    else if (kind === "switch") payload[name] = text === "true";
    else payload[name] = text;
  }
  return payload;
}

/** What has to be typed for this payload; null where these fields do not hold all of it. */
export function typedOf(fields: Field[], payload: Json): Record<string, string> | null {
  if (payload === null || typeof payload !== "object" || Array.isArray(payload)) return null;
  const kinds = new Map(fields.map((it) => [it.name, it.kind]));
  const told = Object.entries(payload).filter(([, value]) => value !== null);
  if (told.some(([name]) => !kinds.has(name))) return null;
  return Object.fromEntries(
    told.map(([name, value]) => [name, kinds.get(name) === "json" ? JSON.stringify(value) : String(value)]),
  );
}

export const isLong = (field: Field) =>
  field.kind === "text" && (field.schema.maxLength ?? LONG_CHARS + 1) > LONG_CHARS;

function fieldsOf(payload: Schema, schemas: Record<string, Schema>): Field[] {
  return Object.entries(payload.properties ?? {}).map(([name, given]) => {
    const schema = plain(resolved(given, schemas), schemas);
    return {
      name,
      kind: kindOf(schema),
      required: payload.required?.includes(name) ?? false,
      about: given.description ?? schema.description ?? "",
      choices: schema.enum ?? [],
      initial: given.default,
      schema,
    };
  });
}

function kindOf(schema: Schema): Field["kind"] {
  if (schema.enum) return "choice";
  if (schema.type === "string") return "text";
  if (schema.type === "integer" || schema.type === "number") return "number";
  return schema.type === "boolean" ? "switch" : "json";
}

function resolved(schema: Schema, schemas: Record<string, Schema>): Schema {
  const name = schema.$ref?.split("/").at(-1);
  return name ? { ...schemas[name], ...schema } : schema;
}

/** Without the null that it may be too. */
function plain(schema: Schema, schemas: Record<string, Schema>): Schema {
  const others = schema.anyOf?.filter((it) => it.type !== "null") ?? [];
  const only = others[0];
  return others.length === 1 && only ? { ...schema, ...resolved(only, schemas) } : schema;
}

function parsed(name: string, text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch (error) {
    throw new SyntaxError(`${name} is no JSON: ${error instanceof Error ? error.message : error}`);
  }
}
