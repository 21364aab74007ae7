/** Jobs by what only their events tell: found while the server looks, with how far it is; can be stopped and
 * go on. What was found stays in its place, and shows what becomes of it. */
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { useChanges } from "../api/feed";
import { type Looked, type Match, search } from "../api/search";
import type { JobRow } from "../api/types";
import { type Filter, said } from "../lib/filter";
import { count, moment } from "../lib/format";
import { Button, Empty, Trouble } from "../parts/basic";
import { Rows, useCursor } from "./jobs-rows";

export function SearchResults({ filter }: { filter: Filter }) {
  const { found, looked, running, next, error, run, stop } = useSearching(filter);
  const room = useRef<HTMLDivElement>(null);
  const rows = useFresh(found);
  const { at } = useCursor(rows, room);
  const where = useMemo(() => new Map(found.map((it) => [it.job.id, it.found_in])), [found]);
  const done = looked?.of ? looked.looked / looked.of : 0;
  return (
    <div className="list-room">
      <div className="search-line">
        <p role="status">
          {count(found.length)} found; looked at {count(looked?.looked ?? 0)}
          {looked?.of ? ` of about ${count(looked.of)}` : ""} jobs
          {running && looked?.at ? `, back to ${moment(looked.at)}` : ""}
          {running ? "…" : next ? "; there is more" : ""}
        </p>
        {running && <progress max={1} value={done} aria-label="Searched" />}
        {running && (
          <Button icon="cancel" onClick={stop}>
            Stop
          </Button>
        )}
        {!running && next && (
          <Button icon="play" onClick={() => run(next, looked?.looked)}>
            Go on
          </Button>
        )}
        {!running && (
          <Button kind="quiet" icon="retry" onClick={() => run("")}>
            Search anew
          </Button>
        )}
      </div>
      <Trouble error={error} />
      {rows.length > 0 && (
        <Rows
          rows={rows}
          at={at}
          room={room}
          note={{ name: filter.text ? "Found in" : "", of: (job) => where.get(job.id) ?? "" }}
        />
      )}
      {!running && !error && rows.length === 0 && (
        <Empty title="Nothing was found">
          {next ? "There is more to look at." : "No job fits all of this."}
        </Empty>
      )}
    </div>
  );
}

/** The jobs that were found, as they are by now. */
function useFresh(found: Match[]): JobRow[] {
  const [now, setNow] = useState(new Map<string, JobRow>());
  const known = useMemo(() => new Set(found.map((it) => it.job.id)), [found]);
  useChanges(({ jobs }) => {
    const mine = jobs.filter((it) => known.has(it.id));
    if (mine.length > 0) setNow((old) => new Map([...old, ...mine.map((it) => [it.id, it] as const)]));
  });
  return useMemo(() => found.map((it) => now.get(it.job.id) ?? it.job), [found, now]);
}

/** A search that goes on may begin with some that were found already. */
function joined(all: Match[], more: Match[]): Match[] {
  const known = new Set(all.map((it) => it.job.id));
  return [...all, ...more.filter((it) => !known.has(it.job.id))];
}

function useSearching(filter: Filter) {
  const [found, setFound] = useState<Match[]>([]);
  const [looked, setLooked] = useState<Looked | null>(null);
  const [running, setRunning] = useState(true);
  const [error, setError] = useState<unknown>(null);
  const stopper = useRef<AbortController | null>(null);
  const asked = new URLSearchParams(said(filter)).toString();

  const run = useCallback(
    async (cursor: string, before = 0) => {
      const control = new AbortController();
      stopper.current?.abort();
      stopper.current = control;
      setRunning(true);
      setError(null);
      if (!cursor) {
        setFound([]);
        setLooked(null);
      }
      const query = new URLSearchParams(asked);
      if (cursor) query.set("cursor", cursor);
      try {
        await search(query, control.signal, ({ matches, looked }) => {
          if (matches.length > 0) setFound((all) => joined(all, matches));
          if (looked) setLooked({ ...looked, looked: before + looked.looked });
        });
      } catch (problem) {
        if (!control.signal.aborted) setError(problem);
      }
      if (stopper.current === control) setRunning(false);
    },
    [asked],
  );
  useEffect(() => {
    run("");
    return () => stopper.current?.abort();
  }, [run]);
  return { found, looked, running, next: looked?.next, error, run, stop: () => stopper.current?.abort() };
}
