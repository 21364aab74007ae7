/** A redrive as it is asked for, typed and told: jobs that have ended, submitted again as new ones. */
import type { JobRow, Json } from "../api/types";
import type { BulkFilter } from "./filter";
import type { Field } from "./schema";

export type Patch = { [name: string]: Json };
/** What POST /redrive takes. */
export type Order = { filter: BulkFilter; patch?: Patch; rate?: number; id?: string; archived?: boolean };
/** The same as it is typed. */
export type Draft = { patch: string; rate: string; id: string; archived: boolean };

/** One place where a payload would change; a side that is not there has no value. */
export type Change = { path: string; before?: Json; after?: Json };
export type Refusal = { id: string; problem: string };
export type Sample = { job: JobRow; changes: Change[]; sealed: boolean };
export type Preview = {
  count: number;
  complete: boolean;
  refused: number;
  refusals: Refusal[];
  samples: Sample[];
  seconds: number | null;
  removed: number;
};
/** What a redrive has done so far. */
export type Redriven = Record<"looked" | "matched" | "sent" | "known" | "refused" | "gone", number> & {
  refusals: Refusal[];
};

const MAX_RATE = 100_000;
const MAX_ID_CHARS = 100;
const VALUE_CHARS = 100;
const OFFERED = 12;
const LONG_CHARS = 200;
const WHOLE = /"(?:\\.|[^"\\])*"|((?<![\d.eE+-])-?\d+(?![\d.eE]))/g;

/** The patch that was typed; nothing typed changes nothing. Or what is wrong with it. */
export function readPatch(text: string): { patch: Patch } | { wrong: string } {
  if (!text.trim()) return { patch: {} };
  try {
    const value = JSON.parse(text) as Json;
    if (!isObject(value)) return { wrong: 'It must be an object of what changes, like {"name": "value"}' };
    const long = longNumber(text);
    return long
      ? { wrong: `${long} has more digits than a browser keeps: use the command` }
      : { patch: value };
  } catch (error) {
    return { wrong: `No JSON yet: ${error instanceof Error ? error.message : error}` };
  }
}

/** A whole number that would not be the same after it was read and written. */
function longNumber(text: string): string | undefined {
  const whole = [...text.matchAll(WHOLE)].flatMap(([, digits]) => digits ?? []);
  return whole.find((it) => !Number.isSafeInteger(Number(it)));
}

/** Jobs per second, 0 without a limit; null for what is none. */
export function readRate(text: string): number | null {
  const rate = text.trim() === "" ? 0 : Number(text);
  return rate >= 0 && rate <= MAX_RATE ? rate : null;
}

/** The order as it is typed; null while it cannot be read. */
export function orderOf(draft: Draft, filter: BulkFilter): Order | null {
  const read = readPatch(draft.patch);
  const rate = readRate(draft.rate);
  if ("wrong" in read || rate === null) return null;
  const id = draft.id.trim();
  return {
    filter,
    ...(Object.keys(read.patch).length > 0 && { patch: read.patch }),
    ...(rate > 0 && { rate }),
    ...(id && { id }),
    ...(draft.archived && { archived: true }),
  };
}

/** A name under which it can be started again: what is meant, and when it was asked for. */
export function nameFor({ queue, type, state }: BulkFilter, now: Date): string {
  const local = new Date(now.getTime() - now.getTimezoneOffset() * 60_000).toISOString();
  const when = `${local.slice(0, 10)}-${local.slice(11, 19).replaceAll(":", "")}`;
  return [type || queue, state, when].filter(Boolean).join("-").slice(-MAX_ID_CHARS);
}

/** Fields that a patch could change, each with a value to begin from: those of a payload like the ones that
 * are meant, then those of its contract. */
export function offered(payload: Json, fields: Field[]): [string, Json][] {
  const known = isObject(payload) && !isSealed(payload) ? Object.entries(payload) : [];
  const given = known.map(([name, value]): [string, Json] => [name, isLong(value) ? "" : value]);
  const others = fields.filter((it) => !given.some(([name]) => name === it.name));
  const blank = others.map((it): [string, Json] => [it.name, it.initial ?? EMPTY[it.kind]]);
  return [...given, ...blank].slice(0, OFFERED);
}

const EMPTY: Record<Field["kind"], Json> = { text: "", choice: "", number: 0, switch: false, json: [] };

const isObject = (value: Json): value is Patch =>
  value !== null && typeof value === "object" && !Array.isArray(value);
const isSealed = ({ sealed, problem: _, ...rest }: Patch) =>
  sealed === true && Object.keys(rest).length === 0;
const isLong = (value: Json) => JSON.stringify(value).length > LONG_CHARS;

/** The patch with one more field; as it was where it cannot be read. */
export function withField(text: string, name: string, value: Json): string {
  const read = readPatch(text);
  return "wrong" in read ? text : JSON.stringify({ [name]: value, ...read.patch }, null, 2);
}

/** The fields of a patch that its contract does not know. */
export function unknownIn(patch: Patch, fields: Field[]): string[] {
  return fields.length === 0
    ? []
    : Object.keys(patch).filter((it) => !fields.some(({ name }) => name === it));
}

/** A value in a line. */
export function inShort(value: Json): string {
  const told = JSON.stringify(value);
  return told.length > VALUE_CHARS ? `${told.slice(0, VALUE_CHARS)}…` : told;
}

/** The jobs that are refused for the same reason, most of them first. */
export function byProblem(refusals: Refusal[]): { problem: string; ids: string[] }[] {
  const groups = new Map<string, string[]>();
  for (const { id, problem } of refusals) groups.set(problem, [...(groups.get(problem) ?? []), id]);
  return [...groups].map(([problem, ids]) => ({ problem, ids })).sort((a, b) => b.ids.length - a.ids.length);
}

/** Where the new jobs of a redrive are found, by its name or the id of its job. */
export function copies({ queue }: BulkFilter, redrive: string): string {
  return `/jobs?${new URLSearchParams({ ...(queue && { queue }), origin: redrive })}`;
}
