/** One list, newest first, out of the lists of several queues; each is read a page at a time.
 *
 * The API pages each queue by itself. A job comes before another if it was submitted later; at the same
 * moment, by queue and id. A queue is asked for its next page only when its last row was taken.
 */
import type { JobPage, JobRow } from "../api/types";

/** Where a queue's list stands: rows read and not taken yet, and the cursor behind them (null: the end). */
export type Source = { queue: string; rows: JobRow[]; cursor: string | null; begun: boolean };
export type Page = { jobs: JobRow[]; rest: Source[] };

type Read = (queue: string, cursor: string | null) => Promise<JobPage>;

export const sourcesOf = (queues: string[]): Source[] =>
  queues.map((queue) => ({ queue, rows: [], cursor: null, begun: false }));

/** Up to `size` jobs, and where to go on; `rest` is empty at the end of all lists. */
export async function nextPage(sources: Source[], read: Read, size: number): Promise<Page> {
  let rest = sources;
  const jobs: JobRow[] = [];
  while (jobs.length < size) {
    rest = (await Promise.all(rest.map((it) => filled(it, read)))).filter((it) => it.rows.length > 0);
    if (rest.length === 0) break;
    const taken = takeUntilOneIsEmpty(rest, size - jobs.length);
    jobs.push(...taken.jobs);
    rest = taken.rest.filter((it) => it.rows.length > 0 || it.cursor !== null);
  }
  return { jobs, rest };
}

export function byAge(a: JobRow, b: JobRow): number {
  if (a.submitted_at !== b.submitted_at) return a.submitted_at < b.submitted_at ? 1 : -1;
  return a.queue === b.queue ? sequence(b.id) - sequence(a.id) : a.queue < b.queue ? -1 : 1;
}

async function filled(source: Source, read: Read): Promise<Source> {
  let { queue, rows, cursor, begun } = source;
  // A page may be empty and yet not the last: its jobs moved on while it was read.
  while (rows.length === 0 && (!begun || cursor !== null)) {
    const page = await read(queue, cursor);
    [rows, cursor, begun] = [page.jobs, page.next, true];
  }
  return { queue, rows, cursor, begun };
}

function takeUntilOneIsEmpty(sources: Source[], size: number): Page {
  const left = sources.map((it) => ({ ...it, rows: [...it.rows] }));
  const jobs: JobRow[] = [];
  while (jobs.length < size && left.every((it) => it.rows.length > 0)) {
    const first = left.reduce((a, b) => (byAge(a.rows[0] as JobRow, b.rows[0] as JobRow) <= 0 ? a : b));
    jobs.push(first.rows.shift() as JobRow);
  }
  return { jobs, rest: left };
}

function sequence(id: string): number {
  return Number(id.slice(id.lastIndexOf("-") + 1));
}
