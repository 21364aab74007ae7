/** The time, for all that says how long ago: one clock that ticks each second. */
import { useSyncExternalStore } from "react";

let now = Date.now();
let ticking: ReturnType<typeof setInterval> | undefined;
const watchers = new Set<() => void>();

function watch(watcher: () => void) {
  watchers.add(watcher);
  ticking ??= setInterval(() => {
    now = Date.now();
    for (const it of watchers) it();
  }, 1000);
  return () => {
    watchers.delete(watcher);
    if (watchers.size > 0) return;
    clearInterval(ticking);
    ticking = undefined;
  };
}

export const useNow = () => useSyncExternalStore(watch, () => now);
