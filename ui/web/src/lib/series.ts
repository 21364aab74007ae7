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
