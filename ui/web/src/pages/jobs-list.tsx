/** Jobs, newest first: a list of any length, live.
 *
 * What comes new goes on top only while the reader is there and reads no row; else it waits behind a
 * button. A row that changes, changes in its place, also where it no longer fits the filter: then it is
 * dimmed until the list is read anew.
 */
import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo, useRef, useState } from "react";
import { api } from "../api/client";
import { useChanges, useResets } from "../api/feed";
import type { JobPage, JobRow } from "../api/types";
import { type Filter, said } from "../lib/filter";
import { count } from "../lib/format";
import { byAge, nextPage, type Page, type Source, sourcesOf } from "../lib/merge";
import { Button, Empty, Loading, Trouble } from "../parts/basic";
import { ROW_PX, Rows, useCursor } from "./jobs-rows";

const PAGE = 200;
const MAX_HELD = 2_000;

export function JobList({ filter, names }: { filter: Filter; names: string }) {
  const client = useQueryClient();
  const key = ["jobs", filter, names];
  const list = useInfiniteQuery<Page, Error, { pages: Page[] }, unknown[], Source[]>({
    queryKey: key,
    queryFn: ({ pageParam }) => nextPage(pageParam, (queue, cursor) => read(filter, queue, cursor), PAGE),
    initialPageParam: sourcesOf(
      names.split(",").filter((it) => it && (!filter.queue || it === filter.queue)),
    ),
    getNextPageParam: (last) => (last.rest.length > 0 ? last.rest : undefined),
    staleTime: Number.POSITIVE_INFINITY, // the feed keeps it fresh
    gcTime: 0,
  });
  const { rows, held, show, changed } = useLiveRows(filter, list.data?.pages);
  const room = useRef<HTMLDivElement>(null);
  const { at, setAt } = useCursor(rows, room);
  const [stale, setStale] = useState(false);
  const reading = () => at !== null || (room.current?.scrollTop ?? 0) > ROW_PX / 2;
  useChanges((changes) => changed(changes.jobs, reading()));
  useResets(() => (reading() ? setStale(true) : void list.refetch()));

  if (list.error) return <Trouble error={list.error} again={list.refetch} />;
  if (list.isPending) return <Loading rows={12} />;
  const anew = () => {
    setAt(null);
    setStale(false);
    if (stale) list.refetch();
    show();
    room.current?.scrollTo({ top: 0 });
  };
  return (
    <div className="list-room">
      {(held > 0 || stale) && (
        <Button kind="primary" className="held" onClick={anew}>
          {stale ? "The list has changed" : `${count(held)} new ${held === 1 ? "job" : "jobs"}`} ↑
        </Button>
      )}
      {rows.length === 0 ? (
        <Empty title="No such jobs">
          {Object.keys(said(filter)).length > 0 ? "Nothing fits this filter now." : "Submit the first one."}
        </Empty>
      ) : (
        <Rows
          rows={rows}
          at={at}
          room={room}
          isLeft={(job) => !fits(job, filter)}
          more={list.hasNextPage && !list.isFetchingNextPage ? list.fetchNextPage : null}
        />
      )}
      <p className="list-foot dim">
        {count(rows.length)}{" "}
        {list.hasNextPage ? "read so far; more come as you scroll" : "jobs, all there are"}
        <Button kind="quiet" icon="retry" onClick={() => client.resetQueries({ queryKey: key })}>
          Read anew
        </Button>
      </p>
    </div>
  );
}

function read(filter: Filter, queue: string, cursor: string | null): Promise<JobPage> {
  const query = new URLSearchParams({ limit: String(PAGE) });
  if (filter.state) query.set("state", filter.state);
  if (filter.type) query.set("type", filter.type);
  if (cursor !== null) query.set("cursor", cursor);
  return api<JobPage>(`/jobs/${queue}?${query}`);
}

const fits = (row: JobRow, filter: Filter) =>
  (!filter.queue || row.queue === filter.queue) &&
  (!filter.state || row.state === filter.state) &&
  (!filter.type || row.type === filter.type);

/** The rows that were read, and what the feed said of them since. */
function useLiveRows(filter: Filter, pages: Page[] | undefined) {
  const [news, setNews] = useState({
    now: new Map<string, JobRow>(),
    shown: [] as JobRow[],
    held: [] as JobRow[],
  });
  const { rows, known } = useMemo(() => {
    const read = pages?.flatMap((it) => it.jobs) ?? [];
    const ids = new Set(read.map((it) => it.id));
    const fresh = news.shown.filter((it) => !ids.has(it.id));
    const all = [...fresh, ...read].sort(byAge).map((it) => news.now.get(it.id) ?? it);
    return { rows: all, known: new Set(all.map((it) => it.id)) };
  }, [pages, news]);

  const changed = (jobs: JobRow[], reading: boolean) => {
    if (jobs.length === 0 || pages === undefined) return;
    const now = new Map(news.now);
    const held = new Map(news.held.map((it) => [it.id, it]));
    for (const job of jobs) {
      if (known.has(job.id)) now.set(job.id, job);
      else if (fits(job, filter)) held.set(job.id, job);
      else held.delete(job.id);
    }
    const waiting = [...held.values()].sort(byAge).slice(0, MAX_HELD);
    setNews(
      reading ? { ...news, now, held: waiting } : { now, shown: [...waiting, ...news.shown], held: [] },
    );
  };
  const show = () => setNews({ ...news, shown: [...news.held, ...news.shown], held: [] });
  return { rows, held: news.held.length, show, changed };
}
