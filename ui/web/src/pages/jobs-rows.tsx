/** Rows of jobs, as many as there are: only those in sight are drawn. The keyboard goes from one to the next. */
import { useVirtualizer } from "@tanstack/react-virtual";
import { type RefObject, useCallback, useEffect, useEffectEvent, useState } from "react";
import { jobPath } from "../api/client";
import type { JobRow } from "../api/types";
import { typing } from "../keys";
import { duration } from "../lib/format";
import { Ago, Badge } from "../parts/basic";
import { go, Link } from "../router";

export const ROW_PX = 38;
const MORE_ROWS = 100;

/** The row that the keyboard is on, by its id: it stays the same however many come before it. */
export function useCursor(rows: JobRow[], room: RefObject<HTMLDivElement | null>) {
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

export function Rows(props: {
  rows: JobRow[];
  at: string | null;
  room: RefObject<HTMLDivElement | null>;
  /** Rows that are no longer what is asked for. */
  isLeft?: (job: JobRow) => boolean;
  /** What stands in the last but one column, and its name. */
  note?: { name: string; of: (job: JobRow) => string };
  more?: (() => void) | null;
}) {
  const { rows, at, room, isLeft, note = TOOK, more } = props;
  // With another function all rows are measured again.
  const getItemKey = useCallback((n: number) => rows[n]?.id ?? n, [rows]);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => room.current,
    estimateSize: () => ROW_PX,
    getItemKey,
    overscan: 12,
  });
  const items = virtual.getVirtualItems();
  const last = items.at(-1)?.index ?? 0;
  useEffect(() => {
    if (more && last >= rows.length - MORE_ROWS) more();
  }, [last, more, rows.length]);
  return (
    <>
      <div className="row head" aria-hidden="true">
        <span>State</span>
        <span>Type</span>
        <span>Id</span>
        <span className="number">Attempt</span>
        <span className="number">{note.name}</span>
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
                data-left={isLeft?.(job)}
                data-job={job.id}
              >
                <Badge state={job.state} />
                <span className="type">{job.type}</span>
                <code>{job.id}</code>
                <span className="number attempt">{job.attempt || "–"}</span>
                <span className="number took">{note.of(job)}</span>
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

const TOOK = { name: "Took", of: took };

/** From submission to its end. */
function took(job: JobRow): string {
  const over = job.state === "completed" || job.state === "failed" || job.state === "cancelled";
  return over ? duration(Date.parse(job.updated_at) - Date.parse(job.submitted_at)) : "–";
}
