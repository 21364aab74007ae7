import { expect, test } from "vitest";
import type { JobEvent } from "../api/types";
import { drawn, eventsBy, spans, stateAfter } from "../lib/timeline";

const event = (at: number, name: string, data: JobEvent["data"] = {}): JobEvent => ({
  position: `${at}-0`,
  at: new Date(at).toISOString(),
  event: name,
  data,
});

const brief = (events: JobEvent[], now: number) =>
  spans(events, now).map(
    (it) => `${it.phase} ${it.from}-${it.to} #${it.attempt} ${it.open ? "open" : it.end}`,
  );

test("a life with a failed attempt: waiting, running, backing off, waiting again, running", () => {
  const events = [
    event(1_000, "submitted"),
    event(1_100, "started", { attempt: 1 }),
    event(1_300, "attempt_failed", { delay: 2 }),
    event(3_400, "started", { attempt: 2 }),
    event(3_500, "completed"),
  ];
  expect(brief(events, 9_999)).toEqual([
    "waiting 1000-1100 #0 started",
    "active 1100-1300 #1 attempt_failed",
    "backoff 1300-3300 #1 due",
    "waiting 3300-3400 #1 started",
    "active 3400-3500 #2 completed",
  ]);
});

test("a delayed job that nobody takes waits from when it was due until now", () => {
  const events = [event(1_000, "submitted", { delay: 1 })];
  expect(brief(events, 1_500)).toEqual(["delayed 1000-1500 #0 open"]);
  expect(brief(events, 2_500)).toEqual(["delayed 1000-2000 #0 due", "waiting 2000-2500 #0 open"]);
});

test("a worker that is lost ends its attempt, and the job waits", () => {
  const events = [event(0, "submitted"), event(10, "started", { attempt: 1 }), event(60, "lease_expired")];
  expect(brief(events, 70)).toEqual([
    "waiting 0-10 #0 started",
    "active 10-60 #1 lease_expired",
    "waiting 60-70 #1 open",
  ]);
});

test("long idle spans are folded, and the shares add up", () => {
  const all = drawn(
    spans(
      [
        event(0, "submitted", { delay: 3600 }),
        event(3_600_010, "started", { attempt: 1 }),
        event(3_600_110, "completed"),
      ],
      0,
    ),
  );
  expect(all.map((it) => [it.phase, it.folded])).toEqual([
    ["delayed", true],
    ["waiting", false],
    ["active", false],
  ]);
  expect(all.reduce((sum, it) => sum + it.weight, 0)).toBeCloseTo(1);
  expect(all[2]?.weight).toBeGreaterThan(all[0]?.weight ?? 1);
});

test("looking back: the state after the first events", () => {
  const events = [
    event(0, "submitted", { delay: 5 }),
    event(1, "rescheduled", { at_once: true }),
    event(2, "started"),
    event(3, "progressed"),
    event(4, "attempt_failed"),
    event(5, "started"),
    event(6, "failed"),
    event(7, "requeued"),
  ];
  const states = events.map((_, n) => stateAfter(events.slice(0, n + 1)));
  expect(states).toEqual([
    "delayed",
    "waiting",
    "active",
    "active",
    "delayed",
    "active",
    "failed",
    "waiting",
  ]);
  expect(stateAfter([])).toBe(null);
});

test("what had happened by a moment: at least the first, and all is now", () => {
  const events = [event(1_000, "submitted"), event(1_100, "started"), event(1_300, "completed")];
  expect([0, 1_000, 1_100, 1_299].map((at) => eventsBy(events, at))).toEqual([1, 1, 2, 2]);
  expect([1_300, 9_999].map((at) => eventsBy(events, at))).toEqual([null, null]);
});
