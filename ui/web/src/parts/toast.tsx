/** Short words on what was done, at the edge of the screen. */
import { useSyncExternalStore } from "react";

type Toast = { id: number; text: string; bad: boolean };

const STAY_MS = 4_000;
const watchers = new Set<() => void>();
let toasts: Toast[] = [];
let last = 0;

function set(next: Toast[]) {
  toasts = next;
  for (const watcher of watchers) watcher();
}

export function say(text: string, bad = false) {
  last += 1;
  const id = last;
  set([...toasts.slice(-3), { id, text, bad }]);
  setTimeout(() => set(toasts.filter((it) => it.id !== id)), STAY_MS);
}

/** Do it and say that it was done; or why not. Answers whether it was. */
export async function doing(work: Promise<unknown>, done: string): Promise<boolean> {
  try {
    await work;
    say(done);
    return true;
  } catch (error) {
    say(error instanceof Error ? error.message : String(error), true);
    return false;
  }
}

export function Toasts() {
  const all = useSyncExternalStore(
    (watcher) => {
      watchers.add(watcher);
      return () => void watchers.delete(watcher);
    },
    () => toasts,
  );
  return (
    <div className="toasts" role="status" aria-live="polite">
      {all.map((it) => (
        <div key={it.id} className={it.bad ? "toast bad" : "toast"}>
          {it.text}
        </div>
      ))}
    </div>
  );
}
