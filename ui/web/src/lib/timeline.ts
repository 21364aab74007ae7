/** A job's life as spans of time, told from its events: waiting, delayed, running, backing off.
 *
 * Drawn to scale a life is mostly waiting; so idle spans that outweigh the work are folded: they get a
 * fixed share of the width, and say how long they were.
 */
import type { JobEvent, State } from "../api/types";

export type Phase = "waiting" | "delayed" | "active" | "backoff";
export type Span = { phase: Phase; from: number; to: number; attempt: number; end: string; open: boolean };
export type Drawn = Span & { weight: number; folded: boolean };

const ENDS = new Set(["completed", "failed", "cancelled"]);

/** The spans of these events, oldest first; the last one goes on until `now` unless the job has ended. */
export function spans(events: JobEvent[], now: number): Span[] {
  const found: Span[] = [];
  let phase: Phase | null = null;
  let due: number | null = null;
  let from = 0;
  let attempt = 0;

  const close = (to: number, end: string, open = false) => {
    if (phase === null) return;
    const idle = phase === "delayed" || phase === "backoff";
    if (idle && due !== null && due > from && due < to) {
      found.push({ phase, from, to: due, attempt, end: "due", open: false });
      found.push({ phase: "waiting", from: due, to, attempt, end, open });
    } else if (to > from || phase === "active" || open) {
      found.push({ phase, from, to, attempt, end, open });
    }
  };
  const enter = (next: Phase | null, at: number, until: number | null = null) => {
    [phase, from, due] = [next, at, until];
  };

  for (const { event, at: when, data } of events) {
    const at = Date.parse(when);
    const wait = Number(data.delay ?? 0) * 1000;
    const until = data.run_at ? Number(data.run_at) : wait ? at + wait : null;
    if (event === "submitted" || event === "requeued") {
      enter(until !== null ? "delayed" : "waiting", at, until);
    } else if (event === "rescheduled") {
      close(at, event);
      enter(until !== null ? "delayed" : "waiting", at, until);
    } else if (event === "started") {
      close(at, event);
      attempt = Number(data.attempt ?? attempt + 1);
      enter("active", at);
    } else if (event === "attempt_failed") {
      close(at, event);
      enter("backoff", at, at + wait);
    } else if (event === "lease_expired" || event === "released") {
      close(at, event);
      enter("waiting", at);
    } else if (ENDS.has(event)) {
      close(at, event);
      enter(null, at);
    }
  }
  close(Math.max(now, from), "", true);
  return found;
}

/** The spans with the share of the width (0 to 1) that each is drawn with. */
export function drawn(all: Span[]): Drawn[] {
  const length = (it: Span) => Math.max(0, it.to - it.from);
  const work = all.filter((it) => it.phase === "active").reduce((sum, it) => sum + length(it), 0);
  const longest = Math.max(work / 2, 1);
  const foldable = work > 0;
  const weighed = all.map((it) => {
    const folded = foldable && it.phase !== "active" && length(it) > longest;
    return { ...it, folded, weight: folded ? longest : length(it) };
  });
  // Whatever took no time is still to be seen.
  const least = Math.max(1, ...weighed.map((it) => it.weight)) / 40;
  const sum = weighed.reduce((total, it) => total + Math.max(least, it.weight), 0);
  return weighed.map((it) => ({ ...it, weight: Math.max(least, it.weight) / sum }));
}

const LEADS_TO: Record<string, State> = {
  submitted: "waiting",
  requeued: "waiting",
  started: "active",
  attempt_failed: "delayed",
  lease_expired: "waiting",
  released: "waiting",
  completed: "completed",
  failed: "failed",
  cancelled: "cancelled",
};

/** The state after these events; null before the first. (The server's fold is the law; this is for looking back.) */
export function stateAfter(events: JobEvent[]): State | null {
  let state: State | null = null;
  for (const { event, data } of events) {
    const delayed = (event === "submitted" || event === "rescheduled") && Boolean(data.delay || data.run_at);
    if (delayed) state = "delayed";
    else if (event === "rescheduled") state = data.at_once ? "waiting" : state;
    else state = LEADS_TO[event] ?? state;
  }
  return state;
}

/** How many of these events had happened by a moment (Unix ms), at least the first; null for all of them. */
export function eventsBy(events: JobEvent[], at: number): number | null {
  const many = events.filter((it) => Date.parse(it.at) <= at).length;
  return many >= events.length ? null : Math.max(1, many);
}
