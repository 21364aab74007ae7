import { expect, test } from "vitest";
import { lastSeconds, total } from "../lib/seconds";

const MINUTE = 60_000;
const rates = (completed: number) => ({ submitted: 0, started: 0, completed, failed: 0 });
const none = { p50: [], p95: [], p99: [] };
const series = (queue: string, at: number[], completed: number[]) => ({
  ...{ queue, step_s: 60, at, completed, submitted: [], started: [], failed: [] },
  ...{ wait_ms: none, run_ms: none },
});

test("what was heard counts, and before it the average of each minute", () => {
  const end = 3 * MINUTE;
  const ticks = [end - 2_040, end - 1_020, end].map((at, n) => ({ at, rates: { a: rates(n + 7) } }));
  const kept = {
    series: [series("a", [MINUTE, 2 * MINUTE], [60, 29]), series("b", [MINUTE, 2 * MINUTE], [0, 58])],
    readAt: end - 2_000, // 58 s of the second minute
  };
  const told = lastSeconds(ticks, kept, end, 90);
  const values = told.map((it) => total(it, "completed"));
  expect(values.slice(0, 29)).toEqual(Array(29).fill(1));
  expect(values.slice(-60, -3)).toEqual(Array(57).fill(1.5));
  expect(values.slice(-3)).toEqual([7, 8, 9]);
  expect(told.map((it) => total(it, "completed", "b"))[40]).toBe(1);
  expect(told.at(-1)?.at).toBe(end);
});

test("seconds of which nothing is known stay open", () => {
  const tick = (at: number) => ({ at, rates: { a: rates(2) } });
  const told = lastSeconds([tick(1_000), tick(6_000)], { series: [], readAt: 0 }, 6_000, 6);
  expect(told.map((it) => total(it, "completed"))).toEqual([2, 2, null, null, null, 2]);
});
