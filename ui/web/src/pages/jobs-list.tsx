/** Jobs, newest first: a list of any length, live.
 *
 * What comes new goes on top only while the reader is there and reads no row; else it waits behind a
 * button. A row that changes, changes in its place, also where it no longer fits the filter: then it is
 * dimmed until the list is read anew.
 */
import { type InfiniteData, useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useEffectEvent, useMemo, useRef, useState } from "react";
import { api } from "../api/client";
import { useChanges, useResets } from "../api/feed";
import type { JobPage, JobRow } from "../api/types";
import { type Filter, said } from "../lib/filter";
import { count } from "../lib/format";
import { NO_NEWS, rowsOf, told } from "../lib/live";
import { nextPage, type Page, type Source, sourcesOf } from "../lib/merge";
import { Button, Empty, Loading, Trouble } from "../parts/basic";
import { ROW_PX, Rows, useCursor } from "./jobs-rows";

const PAGE = 200;
const NEXT_PAGES = 500; // who scrolls on, wants many
const MAX_NEWS = 2_000;
const AGAIN_MS = 1_000;

export function JobList({ filter, names }: { filter: Filter; names: string }) {
  const client = useQueryClient();
  const key = ["jobs", filter, names];
  const list = useInfiniteQuery<Page, Error, InfiniteData<Page, Source[]>, unknown[], Source[]>({
    queryKey: key,
    queryFn: ({ pageParam }) => {
      const size = pageParam.some((it) => it.begun) ? NEXT_PAGES : PAGE;
      return nextPage(pageParam, (queue, cursor) => read(filter, queue, cursor, size), size);
    },
    initialPageParam: sourcesOf(
      names.split(",").filter((it) => it && (!filter.queue || it === filter.queue)),
    ),
    getNextPageParam: (last) => (last.rest.length > 0 ? last.rest : undefined),
    staleTime: Number.POSITIVE_INFINITY, // the feed keeps it fresh
    structuralSharing: false, // rows that were read are never compared with themselves
    gcTime: 0,
  });
  const { rows, held, many, show, changed, forget } = useLiveRows(filter, list.data?.pages);
  const room = useRef<HTMLDivElement>(null);
  const { at, setAt } = useCursor(rows, room);
  const [stale, setStale] = useState(false);
  const reading = () => at !== null || (room.current?.scrollTop ?? 0) > ROW_PX / 2;
  const again = () => {
    if (reading()) return setStale(true);
    client.setQueryData(key, firstPage);
    return list.refetch().then(forget);
  };
  const [behind, setBehind] = useBehind(again);
  useChanges((changes) => {
    changed(changes.jobs, reading());
    if (!behind && (changes.more > 0 || many > MAX_NEWS)) setBehind(true);
  });
  useResets(() => void again());

  if (list.error) return <Trouble error={list.error} again={list.refetch} />;
  if (list.isPending) return <Loading rows={12} />;
  const anew = () => {
    setAt(null);
    setStale(false);
    if (stale) list.refetch().then(forget);
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

/** When the feed told of more jobs than it named, or of more than a list can hold, it is read again; but not
 * more often than once in AGAIN_MS. */
function useBehind(again: () => unknown) {
  const [behind, setBehind] = useState(false);
  const catchUp = useEffectEvent(again);
  useEffect(() => {
    if (!behind) return;
    const soon = setTimeout(() => {
      setBehind(false);
      catchUp();
    }, AGAIN_MS);
    return () => clearTimeout(soon);
  }, [behind]);
  return [behind, setBehind] as const;
}

const firstPage = (all?: InfiniteData<Page, Source[]>) =>
  all && { pages: all.pages.slice(0, 1), pageParams: all.pageParams.slice(0, 1) };

function read(filter: Filter, queue: string, cursor: string | null, limit: number): Promise<JobPage> {
  const query = new URLSearchParams({ limit: String(limit) });
  if (filter.state) query.set("state", filter.state);
  if (filter.type) query.set("type", filter.type);
  if (cursor !== null) query.set("cursor", cursor);
  return api<JobPage>(`/jobs/${queue}?${query}`);
}

const fits = (row: JobRow, filter: Filter) =>
  (!filter.queue || row.queue === filter.queue) &&
  (!filter.state || row.state === filter.state) &&
  (!filter.type || row.type === filter.type);

/** The rows that were read, and what the feed said of them since; `forget` it when they were read again. */
function useLiveRows(filter: Filter, pages: Page[] | undefined) {
  const [news, setNews] = useState(NO_NEWS);
  const { now, shown } = news;
  const rows = useMemo(() => rowsOf(pages ?? [], { now, shown }), [pages, now, shown]);
  const changed = (jobs: JobRow[], reading: boolean) => {
    if (jobs.length === 0 || pages === undefined) return;
    // Two messages may come before the page is drawn again.
    setNews((news) => told(news, pages, jobs, (row) => fits(row, filter), reading));
  };
  const show = () => setNews((news) => ({ ...news, shown: [...news.held, ...news.shown], held: [] }));
  const forget = () => setNews((told) => ({ ...NO_NEWS, shown: told.shown.slice(0, PAGE) }));
  return { rows, held: news.held.length, many: now.size + shown.length, show, changed, forget };
}
