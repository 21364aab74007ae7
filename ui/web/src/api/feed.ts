/** The live feed: one EventSource a tab, told to whoever listens.
 *
 * The first message after each (re)connection brings the figures of all queues; from a cursor the stream
 * goes on where it broke. `reset` says that something was missed: everything is loaded anew.
 *
 * A browser has six connections to a server, so nobody opens a second stream: who wants the events of a job
 * has this one opened anew, from its cursor on, with that job watched; and a tab that nobody has looked at
 * for a while gives its stream back until somebody does.
 */
import type { QueryClient } from "@tanstack/react-query";
import { useEffect, useEffectEvent, useSyncExternalStore } from "react";
import type { Changes, Counts, JobEvent, Queue, Rates } from "./types";

export type Link = "connecting" | "live" | "away";
type Listener = (changes: Changes) => void;

/** A second of all queues, for the charts; kept for KEPT_S. */
export type Tick = { at: number; rates: Record<string, Rates> };
export const KEPT_S = 300;

/** A longer cursor (some hundreds of queues) does not go into an address. */
const MAX_CURSOR = 6_000;
const HIDDEN_MS = 60_000;
const FIGURES_MS = 5_000;
const AGAIN_MS = 5_000;

type Watcher = { id: string; onEvents: (events: JobEvent[]) => void; onOpen: () => void };

const listeners = new Set<Listener>();
const resetters = new Set<() => void>();
const watchers = new Set<() => void>();
let link: Link = "connecting";
let rates: Record<string, Rates> = {};
const counts = new Map<string, { at: number; counts: Counts }>();
let ticks: Tick[] = [];
let client: QueryClient | null = null;
let source: EventSource | null = null;
let cursor = "";
let watched = "";
let watcher: Watcher | null = null;
let since = Number.POSITIVE_INFINITY;

/** Open the feed and tell `to` of what it holds; answers how to close it. */
export function follow(to: QueryClient): () => void {
  client = to;
  open();
  let leaving: ReturnType<typeof setTimeout> | undefined;
  const look = () => {
    clearTimeout(leaving);
    if (document.hidden) leaving = setTimeout(close, HIDDEN_MS);
    else if (source === null) open();
  };
  document.addEventListener("visibilitychange", look);
  const ticking = setInterval(() => {
    const now = Date.now();
    // The rates of the last second are known a second after the stream begins.
    if (source === null || link !== "live" || now - since < 1000) return;
    ticks = [...ticks.filter((it) => it.at > now - KEPT_S * 1000), { at: now, rates }];
    tell();
  }, 1000);
  // Rates, latencies and lag. (A query that is written to so often never comes to an interval of its own.)
  const asking = setInterval(() => {
    if (!document.hidden) client?.invalidateQueries({ queryKey: ["queues"] }, { cancelRefetch: false });
  }, FIGURES_MS);
  return () => {
    document.removeEventListener("visibilitychange", look);
    clearTimeout(leaving);
    clearInterval(ticking);
    clearInterval(asking);
    close();
    client = null;
  };
}

/** Events of one job as they happen; `onOpen` says that from now on none is missed, so what was read before
 * is to be read again. */
export function watchJob(id: string, onEvents: Watcher["onEvents"], onOpen: Watcher["onOpen"]) {
  const mine = { id, onEvents, onOpen };
  watcher = mine;
  if (client !== null && watched !== id) open();
  else onOpen();
  return () => {
    // The stream goes on as it is: to have it opened anew would gain nothing.
    if (watcher === mine) watcher = null;
  };
}

function open() {
  close();
  const query = new URLSearchParams();
  watched = watcher?.id ?? watched;
  if (watched) query.set("watch", watched);
  const fits = cursor.length <= MAX_CURSOR;
  if (cursor && fits) query.set("after", cursor);
  const stream = new EventSource(`/app/feed?${query}`);
  source = stream;
  let first = true;
  stream.onopen = () => become("live");
  stream.onerror = () => {
    become("away");
    // It comes again by itself after a broken stream, but not after a refusal.
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => stream === source && open(), AGAIN_MS);
  };
  stream.addEventListener("link", (event) => become(JSON.parse(event.data).up ? "live" : "away"));
  stream.addEventListener("reset", (event) => {
    cursor = event.lastEventId;
    become("live");
    reset();
  });
  stream.addEventListener("changes", (event) => {
    cursor = event.lastEventId;
    become("live");
    take(JSON.parse(event.data) as Changes);
    if (!first) return;
    first = false;
    since = Date.now();
    if (!fits) reset();
    if (watcher?.id === watched) watcher.onOpen();
  });
}

function close() {
  source?.close();
  source = null;
}

function take(changes: Changes) {
  rates = { ...rates };
  for (const [queue, told] of Object.entries(changes.queues)) {
    rates[queue] = told.rates;
    counts.set(queue, { at: Date.now(), counts: told.counts });
  }
  const known = client?.getQueryData<Queue[]>(["queues"])?.map((it) => it.queue);
  client?.setQueryData<Queue[]>(["queues"], (old) => withCounts(old, changes));
  const isNew = (queue: string) => known !== undefined && !known.includes(queue);
  if (Object.keys(changes.queues).some(isNew))
    client?.invalidateQueries({ queryKey: ["queues"] }, { cancelRefetch: false });
  for (const listener of listeners) listener(changes);
  if (changes.job_events && watcher?.id === watched) watcher.onEvents(changes.job_events);
}

function reset() {
  // The list of jobs decides itself: somebody may be reading it.
  client?.invalidateQueries({ predicate: ({ queryKey }) => queryKey[0] !== "jobs" });
  for (const listener of resetters) listener();
}

/** Call `listener` with each message. */
export function useChanges(listener: Listener) {
  const latest = useEffectEvent(listener);
  useEffect(() => {
    const heard: Listener = (changes) => latest(changes);
    listeners.add(heard);
    return () => void listeners.delete(heard);
  }, []);
}

/** Call `listener` when something was missed, and what is shown must be loaded anew. */
export function useResets(listener: () => void) {
  const latest = useEffectEvent(listener);
  useEffect(() => {
    const heard = () => latest();
    resetters.add(heard);
    return () => void resetters.delete(heard);
  }, []);
}

export const useLink = () => useSyncExternalStore(watch, () => link);
export const useTicks = () => useSyncExternalStore(watch, () => ticks);

/** These queues as they were asked for at `asked` (Unix ms), with the counts that were told since. */
export function sinceAsked(queues: Queue[], asked: number): Queue[] {
  return queues.map((queue) => {
    const told = counts.get(queue.queue);
    return told && told.at >= asked ? { ...queue, counts: told.counts } : queue;
  });
}

function withCounts(old: Queue[] | undefined, changes: Changes): Queue[] | undefined {
  return old?.map((queue) => {
    const told = changes.queues[queue.queue];
    return told ? { ...queue, counts: told.counts } : queue;
  });
}

function become(state: Link) {
  if (state === link) return;
  if (state === "live") since = Date.now();
  link = state;
  tell();
}

function tell() {
  for (const watcher of watchers) watcher();
}

function watch(watcher: () => void) {
  watchers.add(watcher);
  return () => void watchers.delete(watcher);
}
