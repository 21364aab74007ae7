import { expect, test } from "vitest";
import type { JobPage, JobRow } from "../api/types";
import { nextPage, sourcesOf } from "../lib/merge";

const row = (queue: string, ms: number, sequence = 0): JobRow => {
  const at = new Date(ms).toISOString();
  return {
    id: `${queue}.0.${ms}-${sequence}`,
    queue,
    type: "t",
    state: "waiting",
    attempt: 0,
    submitted_at: at,
    ready_at: at,
    updated_at: at,
    misfits: 0,
  };
};

/** Serves lists in pages of `size`; every page but the first of a queue may be preceded by an empty one. */
function server(lists: Record<string, JobRow[]>, size: number) {
  return async (queue: string, cursor: string | null): Promise<JobPage> => {
    const from = Number(cursor ?? 0);
    const all = lists[queue] ?? [];
    if (cursor !== null && !Number.isInteger(from)) return { jobs: [], next: String(Math.ceil(from)) };
    const next = from + size;
    return { jobs: all.slice(from, next), next: next < all.length ? String(next - 0.5) : null };
  };
}

test("the lists of several queues come as one, newest first, none left out and none twice", async () => {
  const lists = {
    a: Array.from({ length: 23 }, (_, n) => row("a", 100_000 - n * 7)),
    b: Array.from({ length: 50 }, (_, n) => row("b", 99_990 - n * 3)),
    c: [],
    d: [row("d", 5)],
  };
  const read = server(lists, 4);
  const got: JobRow[] = [];
  let rest = sourcesOf(Object.keys(lists));
  for (let pages = 0; rest.length > 0 && pages < 100; pages += 1) {
    const page = await nextPage(rest, read, 10);
    expect(page.jobs.length === 10 || page.rest.length === 0).toBe(true);
    got.push(...page.jobs);
    rest = page.rest;
  }
  const times = got.map((it) => Date.parse(it.submitted_at));
  expect(times).toEqual([...times].sort((a, b) => b - a));
  expect(new Set(got.map((it) => it.id)).size).toBe(74);
  expect(got.length).toBe(74);
});

test("a page that is asked for again is the same: what is taken changes no source", async () => {
  const read = server({ a: [row("a", 3), row("a", 2), row("a", 1)] }, 10);
  const first = await nextPage(sourcesOf(["a"]), read, 1);
  const once = await nextPage(first.rest, read, 2);
  const twice = await nextPage(first.rest, read, 2);
  expect(twice).toEqual(once);
  expect(once.jobs.map((it) => Date.parse(it.submitted_at))).toEqual([2, 1]);
});

test("at the same moment the later of a queue comes first", async () => {
  const read = server({ a: [row("a", 5, 10), row("a", 5, 9)], b: [row("b", 5, 2)] }, 10);
  const { jobs } = await nextPage(sourcesOf(["b", "a"]), read, 10);
  expect(jobs.map((it) => it.id)).toEqual(["a.0.5-10", "a.0.5-9", "b.0.5-2"]);
});
