/** All jobs, newest first: a list of any length, live.
 *
 * What comes new goes on top only while the reader is there and reads no row; else it waits behind a
 * button. A row that changes, changes in its place, also where it no longer fits the filter: then it is
 * dimmed until the list is read anew.
 */
import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { useVirtualizer } from "@tanstack/react-virtual";
import { type RefObject, useEffect, useEffectEvent, useMemo, useRef, useState } from "react";
import { api, jobPath } from "../api/client";
import { useChanges, useResets } from "../api/feed";
import { useQueues } from "../api/queries";
import { type JobPage, type JobRow, type Queue, STATES } from "../api/types";
import { typing } from "../keys";
import { count, duration } from "../lib/format";
import { byAge, nextPage, type Page, type Source, sourcesOf } from "../lib/merge";
import { Ago, Badge, Button, Empty, Loading, PageHead, Trouble } from "../parts/basic";
import { type Act, BulkDialog } from "../parts/bulk";
import { useMayOperate } from "../parts/here";
import { go, Link, useSearch } from "../router";
import { SearchResults } from "./jobs-search";

const PAGE = 200;
const ROW_PX = 38;
const MAX_HELD = 2_000;
const JOB_ID = /^[\w-]+\.\d+\.\d+-\d+$/;

type Filter = { queue: string; state: string; type: string };

const TYPING_MS = 400;

export function Jobs() {
  const [params, change] = useSearch();
  const { data: queues, error, refetch } = useQueues();
  const filter = {
    queue: params.get("queue") ?? "",
    state: params.get("state") ?? "",
    type: params.get("type") ?? "",
  };
  const text = params.get("text") ?? "";
  return (
    <div className="fill">
      <PageHead title="Jobs">
        <FilterActs filter={filter} />
      </PageHead>
      <FilterBar filter={filter} text={text} queues={queues ?? []} change={change} />
      <Trouble error={queues ? null : error} again={refetch} />
      {text ? (
        <SearchResults filter={{ ...said(filter), text }} />
      ) : queues ? (
        <JobList
          key={Object.values(filter).join()}
          filter={filter}
          names={queues.map((it) => it.queue).join()}
        />
      ) : (
        !error && <Loading rows={12} />
      )}
    </div>
  );
}

const said = (filter: Filter) => Object.fromEntries(Object.entries(filter).filter(([, value]) => value));

const ACTS: Record<string, [Act, string][]> = {
  waiting: [["cancel", "Cancel all…"]],
  delayed: [
    ["cancel", "Cancel all…"],
    ["promote", "Run all now…"],
  ],
  active: [["cancel", "Cancel all…"]],
  failed: [
    ["discard", "Discard all…"],
    ["retry", "Run all again…"],
  ],
};

/** What can be done to all that fit the filter. */
function FilterActs({ filter }: { filter: Filter }) {
  const [act, setAct] = useState<Act | null>(null);
  if (!useMayOperate()) return null;
  return (
    <>
      {ACTS[filter.state]?.map(([one, name]) => (
        <Button key={one} onClick={() => setAct(one)}>
          {name}
        </Button>
      ))}
      <BulkDialog act={act} filter={said(filter)} onClose={() => setAct(null)} />
    </>
  );
}

function FilterBar(props: {
  filter: Filter;
  text: string;
  queues: Queue[];
  change: (changes: Record<string, string>) => void;
}) {
  const { filter, text, queues, change } = props;
  const box = useRef<HTMLInputElement>(null);
  const chosen = queues.filter((it) => !filter.queue || it.queue === filter.queue);
  const types = [...new Set(chosen.flatMap((it) => Object.keys(it.types)))].sort();
  const total = (state: (typeof STATES)[number]) =>
    chosen.reduce((sum, it) => sum + countOf(it, state, filter.type), 0);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.key !== "/" || typing(event)) return;
      event.preventDefault();
      box.current?.select();
      box.current?.focus();
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, []);
  const take = (text: string) => {
    if (JOB_ID.test(text)) go(jobPath(text));
    else if (text === "" || types.includes(text)) change({ type: text });
  };
  return (
    <search className="filters">
      <select
        aria-label="Queue"
        value={filter.queue}
        onChange={(event) => change({ queue: event.target.value, type: "" })}
      >
        <option value="">All queues</option>
        {queues.map((it) => (
          <option key={it.queue}>{it.queue}</option>
        ))}
      </select>
      <fieldset className="chips">
        <legend className="hidden">State</legend>
        <button type="button" aria-pressed={!filter.state} onClick={() => change({ state: "" })}>
          all
        </button>
        {STATES.map((state) => (
          <button
            type="button"
            key={state}
            data-state={state}
            aria-pressed={filter.state === state}
            onClick={() => change({ state: filter.state === state ? "" : state })}
          >
            {state} <small>{count(total(state))}</small>
          </button>
        ))}
      </fieldset>
      <input
        ref={box}
        key={filter.type}
        type="search"
        list="job-types"
        aria-label="Job type or id"
        placeholder="Job type or id ( / )"
        defaultValue={filter.type}
        onChange={(event) => take(event.target.value.trim())}
        onKeyDown={(event) => event.key === "Escape" && event.currentTarget.blur()}
      />
      <TextFilter text={text} onText={(asked) => change({ text: asked })} />
      <datalist id="job-types">
        {types.map((it) => (
          <option key={it} value={it} />
        ))}
      </datalist>
    </search>
  );
}

/** Words anywhere in a job; asked for when the typing pauses. */
function TextFilter({ text, onText }: { text: string; onText: (text: string) => void }) {
  const [typed, setTyped] = useState(text);
  const told = useEffectEvent(onText);
  useEffect(() => {
    if (typed.trim() === text) return;
    const pause = setTimeout(() => told(typed.trim()), TYPING_MS);
    return () => clearTimeout(pause);
  }, [typed, text]);
  return (
    <input
      type="search"
      aria-label="Text in payload, result or error"
      placeholder="Text in payload, result, error"
      value={typed}
      onChange={(event) => setTyped(event.target.value)}
    />
  );
}

const countOf = (queue: Queue, state: (typeof STATES)[number], type: string) =>
  type ? (queue.types[type]?.[state] ?? 0) : queue.counts[state];

function JobList({ filter, names }: { filter: Filter; names: string }) {
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
          {filter.state || filter.type || filter.queue
            ? "Nothing fits this filter now."
            : "Submit the first one."}
        </Empty>
      ) : (
        <Rows
          rows={rows}
          at={at}
          filter={filter}
          room={room}
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

/** The row that the keyboard is on, by its id: it stays the same however many come before it. */
function useCursor(rows: JobRow[], room: RefObject<HTMLDivElement | null>) {
  const [at, setAt] = useState<string | null>(null);
  const press = useEffectEvent((event: KeyboardEvent) => {
    if (typing(event) || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    if (step) {
      const place = rows.findIndex((it) => it.id === at);
      const next = rows[Math.max(0, Math.min(rows.length - 1, place + step))];
      event.preventDefault();
      if (next) setAt(next.id);
    }
    if (event.key === "Enter" && at && !(event.target instanceof HTMLButtonElement)) go(jobPath(at));
    if (event.key === "Escape") setAt(null);
  });
  useEffect(() => {
    const heard = (event: KeyboardEvent) => press(event);
    window.addEventListener("keydown", heard);
    return () => window.removeEventListener("keydown", heard);
  }, []);
  // biome-ignore lint/correctness/useExhaustiveDependencies: it follows the cursor, not the rows
  useEffect(() => {
    const place = rows.findIndex((it) => it.id === at);
    const box = room.current;
    if (place < 0 || !box) return;
    const [top, bottom] = [place * ROW_PX, (place + 1) * ROW_PX];
    if (top < box.scrollTop) box.scrollTo({ top });
    else if (bottom > box.scrollTop + box.clientHeight) box.scrollTo({ top: bottom - box.clientHeight });
  }, [at]);
  return { at, setAt };
}

function Rows(props: {
  rows: JobRow[];
  at: string | null;
  filter: Filter;
  room: RefObject<HTMLDivElement | null>;
  more: (() => void) | null;
}) {
  const { rows, at, filter, room, more } = props;
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => room.current,
    estimateSize: () => ROW_PX,
    getItemKey: (n) => rows[n]?.id ?? n,
    overscan: 12,
  });
  const items = virtual.getVirtualItems();
  const last = items.at(-1)?.index ?? 0;
  useEffect(() => {
    if (more && last >= rows.length - PAGE / 4) more();
  }, [last, more, rows.length]);
  return (
    <>
      <div className="row head" aria-hidden="true">
        <span>State</span>
        <span>Type</span>
        <span>Id</span>
        <span className="number">Attempt</span>
        <span className="number">Took</span>
        <span className="number">Submitted</span>
      </div>
      <div className="list" ref={room} tabIndex={0} role="region" aria-label="Jobs">
        <div style={{ height: virtual.getTotalSize() }}>
          {items.map(({ key, index, start }) => {
            const job = rows[index] as JobRow;
            return (
              <Link
                key={key}
                href={jobPath(job.id)}
                className="row"
                style={{ transform: `translateY(${start}px)` }}
                data-at={job.id === at}
                data-left={!fits(job, filter)}
                data-job={job.id}
              >
                <Badge state={job.state} />
                <span className="type">{job.type}</span>
                <code>{job.id}</code>
                <span className="number attempt">{job.attempt || "–"}</span>
                <span className="number took">{took(job)}</span>
                <span className="number when">
                  <Ago at={job.submitted_at} />
                </span>
              </Link>
            );
          })}
        </div>
      </div>
    </>
  );
}

/** From submission to its end. */
function took(job: JobRow): string {
  const over = job.state === "completed" || job.state === "failed" || job.state === "cancelled";
  return over ? duration(Date.parse(job.updated_at) - Date.parse(job.submitted_at)) : "–";
}
