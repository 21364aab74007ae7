/** The live feed: one EventSource, kept open by the browser, told to whoever listens.
 *
 * The first message after each (re)connection brings the figures of all queues; Last-Event-ID makes the
 * stream go on where it broke. `reset` says that something was missed: everything is loaded anew.
 */
import type { QueryClient } from "@tanstack/react-query";
import { useEffect, useEffectEvent, useSyncExternalStore } from "react";
import type { Changes, JobEvent, Queue, Rates } from "./types";

export type Link = "connecting" | "live" | "away";
type Listener = (changes: Changes) => void;

/** A second of all queues, for the charts; kept for KEPT_S. */
export type Tick = { at: number; rates: Record<string, Rates> };
export const KEPT_S = 300;

const listeners = new Set<Listener>();
const resetters = new Set<() => void>();
const watchers = new Set<() => void>();
let link: Link = "connecting";
let rates: Record<string, Rates> = {};
let ticks: Tick[] = [];

/** Open the feed and tell `client` of what it holds; answers how to close it. */
export function follow(client: QueryClient): () => void {
  const source = new EventSource("/app/feed");
  source.onopen = () => become("live");
  source.onerror = () => become("away");
  source.addEventListener("link", (event) => become(JSON.parse(event.data).up ? "live" : "away"));
  source.addEventListener("reset", () => {
    become("live");
    // The list of jobs decides itself: somebody may be reading it.
    client.invalidateQueries({ predicate: ({ queryKey }) => queryKey[0] !== "jobs" });
    for (const reset of resetters) reset();
  });
  source.addEventListener("changes", (event) => {
    become("live");
    const changes = JSON.parse(event.data) as Changes;
    rates = { ...rates };
    for (const [queue, told] of Object.entries(changes.queues)) rates[queue] = told.rates;
    client.setQueryData<Queue[]>(["queues"], (old) => withCounts(old, changes));
    for (const listener of listeners) listener(changes);
  });
  const ticking = setInterval(() => {
    const now = Date.now();
    ticks = [...ticks.filter((it) => it.at > now - KEPT_S * 1000), { at: now, rates }];
    tell();
  }, 1000);
  return () => {
    clearInterval(ticking);
    source.close();
  };
}

/** Events of one job as they happen, over a stream of its own; `reset` when some were missed. */
export function followJob(id: string, onEvents: (events: JobEvent[]) => void, onReset: () => void) {
  const query = new URLSearchParams({ queue: id.split(".")[0] ?? "", job: id });
  const source = new EventSource(`/app/feed?${query}`);
  source.addEventListener("reset", onReset);
  source.addEventListener("changes", (event) =>
    onEvents((JSON.parse(event.data) as Changes).job_events ?? []),
  );
  return () => source.close();
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

function withCounts(old: Queue[] | undefined, changes: Changes): Queue[] | undefined {
  return old?.map((queue) => {
    const told = changes.queues[queue.queue];
    return told ? { ...queue, counts: told.counts } : queue;
  });
}

function become(state: Link) {
  if (state === link) return;
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
