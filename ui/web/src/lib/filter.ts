/** Which jobs are asked for: as the address holds it, as the server is asked, and which server can answer. */

const LISTED = ["queue", "state", "type"] as const;
const SEARCHED = ["tag", "worker", "error", "text", "origin", "from", "to"] as const;
const OVER = ["completed", "failed", "cancelled"];
const OPERATIONS = "penstock"; // the queue of those that are jobs themselves
const MINUTE_MS = 60_000;

type Name = (typeof LISTED)[number] | (typeof SEARCHED)[number];
/** `from` and `to`: when they were submitted; `origin`: the job or flow that they were made from. */
export type Filter = Record<Name, string>;

/** What the server that does something to many understands. */
export type BulkFilter = Partial<
  Record<"queue" | "type" | "state" | "tag" | "error" | "since" | "until", string>
>;

export function filterOf(params: URLSearchParams): Filter {
  return Object.fromEntries([...LISTED, ...SEARCHED].map((it) => [it, params.get(it) ?? ""])) as Filter;
}

/** What is asked for, without what is not. */
export const said = (filter: Filter) =>
  Object.fromEntries(Object.entries(filter).filter(([, value]) => value)) as Partial<Filter>;

/** Whether the lists know the answer; else it is searched for. */
export const isListed = (filter: Filter) => SEARCHED.every((it) => !filter[it]);

/** The same for the server that does something to many; null where that would be more than what is shown. */
export function forMany(filter: Filter): BulkFilter | null {
  const { worker, text, origin, from, to, ...rest } = said(filter);
  if (worker || text || origin) return null;
  return { ...rest, ...(from && { since: from }), ...(to && { until: to }) };
}

/** Whether jobs that fit have ended, and can be submitted again. */
export const mayRedrive = ({ state, queue }: BulkFilter) =>
  OVER.includes(state ?? "") && queue !== OPERATIONS;

/** A moment of the address (ISO 8601) as a field for date and time shows it, with `seconds` to the second; empty
 * if it is none. */
export function localTime(iso: string, seconds = false): string {
  const at = Date.parse(iso);
  if (Number.isNaN(at)) return "";
  const local = new Date(at - new Date(at).getTimezoneOffset() * MINUTE_MS);
  return local.toISOString().slice(0, seconds ? 19 : 16);
}

/** And back; empty for what is not a whole moment yet. */
export function isoTime(local: string): string {
  const at = new Date(local);
  return Number.isNaN(at.getTime()) ? "" : `${at.toISOString().slice(0, 16)}Z`;
}

/** The whole minute that began so long ago. */
export const minutesAgo = (minutes: number, now = Date.now()) =>
  `${new Date(now - minutes * MINUTE_MS).toISOString().slice(0, 16)}Z`;
