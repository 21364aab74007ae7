/** The last minutes, second by second: what this page heard, and before that the average of each minute, as
 * the projector kept it. So nobody has to wait for a picture, and a quiet queue shows that it is quiet. */
import type { Tick } from "../api/feed";
import type { Rates, Series } from "../api/types";

/** `rates` by queue; null where nothing is known. */
export type Second = { at: number; rates: Record<string, Rates> | null };
/** What the projector kept, by the minute, as it was read at `readAt` (Unix ms). */
export type Kept = { series: Series[]; readAt: number };

const MINUTE_MS = 60_000;
const HELD_MS = 1_500; // a tick counts for so long: its clock is not quite a second
const NAMES = ["submitted", "started", "completed", "failed"] as const;

/** `many` seconds up to `end` (Unix ms), oldest first; ticks are in order. */
export function lastSeconds(ticks: Tick[], kept: Kept, end: number, many: number): Second[] {
  const minutes = averages(kept);
  let n = 0;
  return Array.from({ length: many }, (_, place) => {
    const at = end - (many - 1 - place) * 1_000;
    while ((ticks[n + 1]?.at ?? Number.POSITIVE_INFINITY) <= at) n += 1;
    const tick = ticks[n];
    if (tick && tick.at <= at && at - tick.at < HELD_MS) return { at, rates: tick.rates };
    const known =
      at <= Math.max(kept.readAt, ticks[0]?.at ?? 0) ? minutes.get(Math.floor(at / MINUTE_MS)) : undefined;
    return { at, rates: known ?? null };
  });
}

/** Of all queues, or of one. */
export function total(second: Second, name: keyof Rates, queue?: string): number | null {
  if (second.rates === null) return null;
  if (queue !== undefined) return second.rates[queue]?.[name] ?? 0;
  return Object.values(second.rates).reduce((sum, it) => sum + it[name], 0);
}

function averages({ series, readAt }: Kept): Map<number, Record<string, Rates>> {
  const found = new Map<number, Record<string, Rates>>();
  for (const one of series) {
    for (const [n, at] of one.at.entries()) {
      const seconds = Math.min(one.step_s, (readAt - at) / 1_000);
      if (seconds < 1) continue;
      const rates = Object.fromEntries(NAMES.map((name) => [name, (one[name][n] ?? 0) / seconds])) as Rates;
      const minute = at / MINUTE_MS;
      found.set(minute, { ...found.get(minute), [one.queue]: rates });
    }
  }
  return found;
}
