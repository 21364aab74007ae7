/** The time, for all that says how long ago: one clock that ticks each second. */
import { useSyncExternalStore } from "react";

let now = Date.now();
let ticking: ReturnType<typeof setInterval> | undefined;
const watchers = new Set<() => void>();

function tick() {
  now = Date.now();
  for (const it of watchers) it();
}

function watch(watcher: () => void) {
  watchers.add(watcher);
  if (ticking === undefined) {
    ticking = setInterval(tick, 1000);
    tick(); // it stood still while nobody looked
  }
  return () => {
    watchers.delete(watcher);
    if (watchers.size > 0) return;
    clearInterval(ticking);
    ticking = undefined;
  };
}

export const useNow = () => useSyncExternalStore(watch, () => now);
