/** Jobs by what stands in them: found while the server looks, with how far it is; can be stopped and go on. */
import { useCallback, useEffect, useRef, useState } from "react";
import { jobPath } from "../api/client";
import { type Looked, type Match, search } from "../api/search";
import { count } from "../lib/format";
import { Ago, Badge, Button, Empty, Trouble } from "../parts/basic";
import { Link } from "../router";

export function SearchResults({ filter }: { filter: Record<string, string> }) {
  const { found, looked, running, next, error, run, stop } = useSearching(filter);
  return (
    <div className="list-room">
      <p className="list-foot dim" role="status">
        <span>
          {count(found.length)} found; looked at {count(looked?.looked ?? 0)}
          {looked?.of ? ` of about ${count(looked.of)}` : ""} jobs{running ? "…" : ""}
        </span>
        {running && (
          <Button kind="quiet" icon="cancel" onClick={stop}>
            Stop
          </Button>
        )}
        {!running && next && (
          <Button kind="quiet" icon="play" onClick={() => run(next)}>
            Go on
          </Button>
        )}
      </p>
      <Trouble error={error} />
      <div className="found" tabIndex={0} role="region" aria-label="Jobs found">
        {found.map(({ job, found_in }) => (
          <Link key={job.id} href={jobPath(job.id)} className="row" data-job={job.id}>
            <Badge state={job.state} />
            <span className="type">{job.type}</span>
            <code>{job.id}</code>
            <span className="number attempt">{job.attempt || "–"}</span>
            <span className="number took">{found_in && `in ${found_in}`}</span>
            <span className="number when">
              <Ago at={job.submitted_at} />
            </span>
          </Link>
        ))}
        {!running && !error && found.length === 0 && <Empty title="Nothing was found" />}
      </div>
    </div>
  );
}

function useSearching(filter: Record<string, string>) {
  const [found, setFound] = useState<Match[]>([]);
  const [looked, setLooked] = useState<Looked | null>(null);
  const [running, setRunning] = useState(true);
  const [error, setError] = useState<unknown>(null);
  const stopper = useRef<AbortController | null>(null);
  const asked = new URLSearchParams(filter).toString();

  const run = useCallback(
    async (cursor: string) => {
      const control = new AbortController();
      stopper.current?.abort();
      stopper.current = control;
      setRunning(true);
      const query = new URLSearchParams(asked);
      if (cursor) query.set("cursor", cursor);
      try {
        await search(query, control.signal, ({ match, progress, end }) => {
          if (match) setFound((all) => [...all, match]);
          if (progress ?? end) setLooked((progress ?? end) as Looked);
        });
      } catch (problem) {
        if (!control.signal.aborted) setError(problem);
      }
      if (stopper.current === control) setRunning(false);
    },
    [asked],
  );
  useEffect(() => {
    setFound([]);
    setLooked(null);
    setError(null);
    run("");
    return () => stopper.current?.abort();
  }, [run]);
  return { found, looked, running, next: looked?.next, error, run, stop: () => stopper.current?.abort() };
}
