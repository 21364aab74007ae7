/** The keyboard, where no field has the focus: g and a letter goes to a page, ? helps, Ctrl K commands. */
import { useEffect, useRef } from "react";
import { PLACES } from "./places";
import { go } from "./router";

const CHORD_MS = 1_000;

export const typing = (event: KeyboardEvent) =>
  event.target instanceof Element && event.target.closest("input, textarea, select, dialog") !== null;

export function useKeys(open: (mode: "commands" | "help") => void) {
  const chord = useRef(Number.NEGATIVE_INFINITY);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        open("commands");
        return;
      }
      if (typing(event) || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "?") open("help");
      const place = PLACES.find((it) => it.key === event.key);
      if (place && event.timeStamp - chord.current < CHORD_MS) {
        event.stopImmediatePropagation();
        go(place.to);
      }
      chord.current = event.key === "g" ? event.timeStamp : Number.NEGATIVE_INFINITY;
    };
    window.addEventListener("keydown", press, { capture: true });
    return () => window.removeEventListener("keydown", press, { capture: true });
  }, [open]);
}
