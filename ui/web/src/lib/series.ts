/** The series of several queues as one; they have the same steps, though one may begin a step later. */
import type { Series } from "../api/types";

type Column = { times: number[]; values: (number | null)[] };

const FEW_MS = 5_000;

/** The sum of a count, per second; times in Unix s. What still runs counts for as long as it has run by `now`
 * (Unix ms), and just begun for nothing. */
export function perSecond(all: Series[], name: "submitted" | "completed" | "failed", now: number): Column {
  return combined(
    all,
    (it, n) => {
      const ran = Math.min(it.step_s * 1_000, now - (it.at[n] ?? now));
      return ran < FEW_MS ? null : ((it[name][n] ?? 0) * 1_000) / ran;
    },
    (a, b) => a + b,
  );
}

/** The greatest 95th percentile, in ms; null where nothing was measured. */
export function worst(all: Series[], name: "wait_ms" | "run_ms"): Column {
  return combined(all, (it, n) => it[name].p95[n] ?? null, Math.max);
}

/** A step of a span: where it begins and how wide it is, as parts of the span; how many jobs completed in it
 * and how many failed, as parts of the most that ended in one step. */
export type Ending = { x: number; width: number; completed: number; failed: number };

/** What ended when, from one moment to another (Unix ms); steps in which nothing ended are left out. */
export function endings(all: Series[], from: number, to: number): Ending[] {
  const found = new Map<number, { completed: number; failed: number }>();
  for (const { at, completed, failed } of all) {
    for (const [n, time] of at.entries()) {
      const old = found.get(time) ?? { completed: 0, failed: 0 };
      const [done, lost] = [old.completed + (completed[n] ?? 0), old.failed + (failed[n] ?? 0)];
      found.set(time, { completed: done, failed: lost });
    }
  }
  const most = Math.max(1, ...[...found.values()].map((it) => it.completed + it.failed));
  const step = (all[0]?.step_s ?? 0) * 1_000;
  return [...found].flatMap(([time, { completed, failed }]) => {
    const [begin, end] = [Math.max(from, time), Math.min(to, time + step)];
    if (begin >= end || completed + failed === 0) return [];
    const [x, width] = [(begin - from) / (to - from), (end - begin) / (to - from)];
    return [{ x, width, completed: completed / most, failed: failed / most }];
  });
}

function combined(
  all: Series[],
  value: (series: Series, n: number) => number | null,
  join: (a: number, b: number) => number,
): Column {
  const found = new Map<number, number | null>();
  for (const series of all) {
    for (const [n, at] of series.at.entries()) {
      const [old, mine] = [found.get(at) ?? null, value(series, n)];
      found.set(at, old === null || mine === null ? (old ?? mine) : join(old, mine));
    }
  }
  const sorted = [...found].sort(([a], [b]) => a - b);
  return { times: sorted.map(([at]) => at / 1000), values: sorted.map(([, it]) => it) };
}
