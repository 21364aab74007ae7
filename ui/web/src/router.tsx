/** Paths and their parameters, by the browser's history: no more than the pages need. */
import { type AnchorHTMLAttributes, type MouseEvent, useMemo, useSyncExternalStore } from "react";

const listeners = new Set<() => void>();
const tell = () => {
  for (const listener of listeners) listener();
};

function subscribe(listener: () => void) {
  listeners.add(listener);
  window.addEventListener("popstate", listener);
  return () => {
    listeners.delete(listener);
    window.removeEventListener("popstate", listener);
  };
}

/** Go to a path of the app; `replace` leaves no step to go back to. */
export function go(to: string, replace = false) {
  const before = window.location.pathname;
  window.history[replace ? "replaceState" : "pushState"](null, "", to);
  if (window.location.pathname !== before) window.scrollTo(0, 0);
  tell();
}

export const usePath = () => useSyncExternalStore(subscribe, () => window.location.pathname);

/** The parameters of the address, and how to change some (empty ones leave). */
export function useSearch(): [URLSearchParams, (changes: Record<string, string>) => void] {
  const search = useSyncExternalStore(subscribe, () => window.location.search);
  const params = useMemo(() => new URLSearchParams(search), [search]);
  const change = (changes: Record<string, string>) => {
    const next = new URLSearchParams(window.location.search);
    for (const [name, value] of Object.entries(changes)) {
      if (value) next.set(name, value);
      else next.delete(name);
    }
    const told = next.toString();
    go(window.location.pathname + (told ? `?${told}` : ""), true);
  };
  return [params, change];
}

/** An anchor that stays in the app, but for a click with a modifier. */
export function Link({ href = "", onClick, ...rest }: AnchorHTMLAttributes<HTMLAnchorElement>) {
  const follow = (event: MouseEvent<HTMLAnchorElement>) => {
    onClick?.(event);
    const plain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
    if (!plain || event.defaultPrevented) return;
    event.preventDefault();
    go(href);
  };
  return <a href={href} onClick={follow} {...rest} />;
}
