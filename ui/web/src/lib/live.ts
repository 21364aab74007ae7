/** A list that was read, and what the feed has said of its jobs since: quick for a hundred thousand rows. */
import type { JobRow } from "../api/types";
import { byAge, type Page } from "./merge";

/** `now`: rows of the list as they are now; `shown`: jobs that came since; `held`: those that wait to be
 * shown, newest first. */
export type News = { now: ReadonlyMap<string, JobRow>; shown: JobRow[]; held: JobRow[] };

export const NO_NEWS: News = { now: new Map(), shown: [], held: [] };
const MAX_HELD = 2_000;

/** The rows in their order: what was read is in order already, and what came since is mostly newer. */
export function rowsOf(pages: Page[], { now, shown }: Pick<News, "now" | "shown">): JobRow[] {
  const all = pages.flatMap((it) => it.jobs);
  const read = now.size > 0 ? all.map((it) => now.get(it.id) ?? it) : all;
  const fresh = shown
    .filter((it) => !isRead(pages, it.id))
    .map((it) => now.get(it.id) ?? it)
    .sort(byAge);
  const [newest, oldest] = [read[0], fresh.at(-1)];
  if (!newest || !oldest || byAge(oldest, newest) < 0) return [...fresh, ...read];
  return [...fresh, ...read].sort(byAge);
}

/** The news with these changes; while somebody reads, what is new waits. */
export function told(
  news: News,
  pages: Page[],
  changes: JobRow[],
  fits: (row: JobRow) => boolean,
  reading: boolean,
): News {
  const shown = new Set(news.shown.map((it) => it.id));
  const now = new Map(news.now);
  const held = new Map(news.held.map((it) => [it.id, it]));
  let moved = false;
  for (const job of changes) {
    if (shown.has(job.id) || isRead(pages, job.id)) {
      now.set(job.id, job);
      moved = true;
    } else if (fits(job)) held.set(job.id, job);
    else held.delete(job.id);
  }
  const waiting = [...held.values()].sort(byAge).slice(0, MAX_HELD);
  const next = { ...news, ...(moved && { now }), held: waiting };
  return reading || waiting.length === 0 ? next : { ...next, shown: [...waiting, ...news.shown], held: [] };
}

const ids = new WeakMap<Page, Set<string>>();

function isRead(pages: Page[], id: string): boolean {
  return pages.some((page) => {
    const known = ids.get(page) ?? new Set(page.jobs.map((it) => it.id));
    ids.set(page, known);
    return known.has(id);
  });
}
