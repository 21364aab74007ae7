import { expect, test } from "vitest";
import type { JobRow } from "../api/types";
import { type News, NO_NEWS, rowsOf, told } from "../lib/live";
import type { Page } from "../lib/merge";

const row = (n: number, state: JobRow["state"] = "waiting"): JobRow => {
  const at = new Date(n * 1000).toISOString();
  const times = { submitted_at: at, ready_at: at, updated_at: at };
  return { id: `q.0.${n}000-0`, queue: "q", type: "t", state, attempt: 0, misfits: 0, ...times };
};
const page = (...numbers: number[]): Page => ({ jobs: numbers.map((it) => row(it)), rest: [] });
const ids = (rows: JobRow[]) => rows.map((it) => Number(it.id.slice(4, -5)));
const waits = (it: JobRow) => it.state === "waiting";

test("what is new comes on top, what changed stays in its place, none comes twice", () => {
  const pages = [page(9, 8), page(5, 3)];
  let news: News = told(NO_NEWS, pages, [row(8, "failed"), row(11), row(10)], waits, false);
  news = told(news, pages, [row(11, "failed"), row(12)], waits, false);
  const rows = rowsOf(pages, news);
  expect(ids(rows)).toEqual([12, 11, 10, 9, 8, 5, 3]);
  expect(rows.map((it) => it.state === "failed")).toEqual([false, true, false, false, true, false, false]);
  expect(ids(rowsOf([page(12, 11, 10, 9, 8), page(5, 3)], news))).toEqual(ids(rows));
});

test("what came between what was read stands there", () => {
  const news = told(NO_NEWS, [page(9, 5)], [row(7), row(10)], waits, false);
  expect(ids(rowsOf([page(9, 5)], news))).toEqual([10, 9, 7, 5]);
});

test("while somebody reads, what is new waits; what left the filter meanwhile does not", () => {
  const pages = [page(9)];
  let news = told(NO_NEWS, pages, [row(10), row(11)], waits, true);
  news = told(news, pages, [row(10, "active")], waits, true);
  expect(ids(rowsOf(pages, news))).toEqual([9]);
  expect(ids(news.held)).toEqual([11]);
  expect(news.now).toBe(NO_NEWS.now); // so no row is drawn again
});
