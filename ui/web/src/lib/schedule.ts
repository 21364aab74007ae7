/** A schedule as a form has it, and as the API is asked for it. */
import type { CatchUp, Json, Overlap, Schedule } from "../api/types";

/** Numbers and times as they were typed (times in the browser's zone); `kept`: what the form does not show
 * and a change must not lose. */
export type Draft = Record<"name" | "type" | "cron" | "every" | "tz" | "start" | "end" | "jitter", string> &
  Record<"window" | "limit" | "tags", string> & {
    rhythm: "cron" | "every";
    overlap: Overlap;
    catch_up: CatchUp;
    kept: Record<string, Json>;
    before: { start: string; end: string };
  };

const KEPT = ["priority", "attempts", "backoff", "timeout", "ttl", "group"];
const WINDOW_S = 24 * 3600;
const LIMIT = 100;

export const blank = (type: string, tz: string): Draft => ({
  ...{ name: "", type, rhythm: "cron", cron: "0 3 * * *", every: "60", tz },
  ...{ start: "", end: "", jitter: "", overlap: "skip", catch_up: "last" },
  ...{ window: String(WINDOW_S), limit: String(LIMIT), tags: "", kept: {}, before: { start: "", end: "" } },
});

export function draftOf(it: Schedule): Draft {
  const text = (value: number | undefined) => (value ? String(value) : "");
  const job = Object.entries(it.job).filter(([name]) => KEPT.includes(name));
  return {
    ...blank(it.job.type, it.tz ?? "UTC"),
    name: it.name,
    rhythm: it.every ? "every" : "cron",
    ...(it.cron && { cron: it.cron }),
    ...(it.every && { every: String(it.every) }),
    start: toLocal(it.start),
    end: toLocal(it.end),
    jitter: text(it.jitter),
    overlap: it.overlap,
    catch_up: it.catch_up,
    ...(it.window && { window: String(it.window) }),
    ...(it.limit && { limit: String(it.limit) }),
    tags: Array.isArray(it.job.tags) ? it.job.tags.join(", ") : "",
    kept: Object.fromEntries(job),
    before: { start: it.start ?? "", end: it.end ?? "" },
  };
}

/** What PUT /schedules/{name} takes. */
export function requestOf(draft: Draft, payload: Json): Json {
  const { rhythm, cron, tz, overlap, catch_up, before } = draft;
  const tags = draft.tags
    .split(",")
    .map((it) => it.trim())
    .filter(Boolean);
  const start = toMoment(draft.start, before.start);
  const end = toMoment(draft.end, before.end);
  return {
    job: { ...draft.kept, type: draft.type, payload, ...(tags.length > 0 && { tags }) },
    ...(rhythm === "cron" ? { cron } : { every: Number(draft.every) }),
    ...{ tz, overlap, catch_up },
    ...(start && { start }),
    ...(end && { end }),
    ...(draft.jitter && { jitter: Number(draft.jitter) }),
    ...(catch_up === "all" && { window: Number(draft.window), limit: Number(draft.limit) }),
  };
}

/** A tick as people say it, in the schedule's zone; without one, in the browser's. */
export function tickIn(moment: string, zone: string | undefined, seconds = false): string {
  const options: Intl.DateTimeFormatOptions = {
    ...{ weekday: "short", day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit" },
    ...(seconds && { second: "2-digit" }),
    ...(zone && isZone(zone) && { timeZone: zone }),
  };
  return new Intl.DateTimeFormat("en-GB", options).format(new Date(moment));
}

/** Whether this browser knows it: one that is being typed it does not. */
function isZone(zone: string): boolean {
  try {
    return Boolean(new Intl.DateTimeFormat("en-GB", { timeZone: zone }));
  } catch {
    return false;
  }
}

/** A moment as an input takes it, in this browser's zone, to the second. */
function toLocal(moment: string | undefined): string {
  if (!moment) return "";
  const at = new Date(moment);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

/** And back; where it was not changed, the moment that it was, to the millisecond. */
function toMoment(local: string, before: string): string {
  if (local === toLocal(before)) return before;
  return local ? new Date(local).toISOString() : "";
}
