/** Time travel: all queues and their jobs as they were at a moment; told forward at a chosen speed.
 *
 * The server folds the log up to that moment; this page only asks.
 */
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { api, jobPath } from "../api/client";
import { type JobPage, type Queue, type Span, STATES } from "../api/types";
import { count, duration, moment } from "../lib/format";
import { Badge, Button, Empty, Loading, PageHead, Trouble } from "../parts/basic";
import { Icon } from "../parts/icons";
import { Link, useSearch } from "../router";

const FRAME_MS = 500;
const SPEEDS = [1, 10, 60, 600];
const SHOWN = 30;
const STEPS = 1_000;

export default function Travel() {
  const [params, change] = useSearch();
  const span = useQuery({ queryKey: ["span"], queryFn: () => api<Span>("/span"), staleTime: 30_000 });
  const from = Date.parse(span.data?.from_at ?? "");
  const to = Date.parse(span.data?.to_at ?? "");
  const at = Math.min(to, Math.max(from, Number(params.get("at")) || to));
  const setAt = (ms: number) => change({ at: String(Math.round(ms)) });
  if (span.error) return <Trouble error={span.error} again={span.refetch} />;
  if (!span.data) return <Loading />;
  if (!span.data.from_at) return <Empty title="The log is empty">There is no past to look at yet.</Empty>;
  return (
    <>
      <PageHead title="Time travel" note={`The log goes back ${duration(to - from)}.`} />
      <Slider from={from} to={to} at={at} onAt={setAt} />
      <Then at={at} queue={params.get("queue") ?? ""} onQueue={(queue) => change({ queue })} />
    </>
  );
}

function Slider(props: { from: number; to: number; at: number; onAt: (ms: number) => void }) {
  const { from, to, at, onAt } = props;
  const [playing, setPlaying] = useState(false);
  const [speed, setSpeed] = useState(10);
  useEffect(() => {
    if (!playing) return;
    const frame = setTimeout(() => {
      onAt(Math.min(to, at + FRAME_MS * speed));
      if (at >= to) setPlaying(false);
    }, FRAME_MS);
    return () => clearTimeout(frame);
  }, [playing, at, to, speed, onAt]);
  return (
    <section className="past panel-past">
      <Icon name="schedules" />
      <output>
        As it was at <b>{moment(at)}</b>
      </output>
      <Button icon={playing ? "pause" : "play"} onClick={() => setPlaying(!playing)}>
        {playing ? "Pause" : "Play"}
      </Button>
      <select aria-label="Speed" value={speed} onChange={(event) => setSpeed(Number(event.target.value))}>
        {SPEEDS.map((it) => (
          <option key={it} value={it}>
            {it} ×
          </option>
        ))}
      </select>
      <input
        type="range"
        aria-label="Moment"
        aria-valuetext={moment(at)}
        min={from}
        max={to}
        step={Math.max(1, Math.floor((to - from) / STEPS))}
        value={at}
        onChange={(event) => onAt(Number(event.target.value))}
      />
    </section>
  );
}

function Then({ at, queue, onQueue }: { at: number; queue: string; onQueue: (queue: string) => void }) {
  const queues = useQuery({
    queryKey: ["queues-at", at],
    queryFn: async () => (await api<{ queues: Queue[] }>(`/queues?at=${at}`)).queues,
    placeholderData: keepPreviousData,
    staleTime: Number.POSITIVE_INFINITY,
  });
  const busiest = queues.data?.reduce(
    (a, b) => (ofAll(b) > ofAll(a) ? b : a),
    queues.data[0] as Queue,
  )?.queue;
  const chosen = queue || busiest;
  const jobs = useQuery({
    queryKey: ["jobs-at", chosen, at],
    queryFn: () => api<JobPage>(`/jobs/${chosen}?at=${at}&limit=${SHOWN}`),
    enabled: Boolean(chosen),
    placeholderData: keepPreviousData,
    staleTime: Number.POSITIVE_INFINITY,
  });
  if (queues.error) return <Trouble error={queues.error} again={queues.refetch} />;
  if (!queues.data) return <Loading />;
  return (
    <>
      <section className="panel flush">
        <header>
          <h2>Queues then</h2>
        </header>
        <div className="table-room" tabIndex={0} role="region" aria-label="Queues then">
          <table className="queues plain">
            <thead>
              <tr>
                <th>Queue</th>
                {STATES.map((state) => (
                  <th key={state} className="number">
                    {state}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {queues.data.map((it) => (
                <tr key={it.queue}>
                  <th scope="row">
                    <button
                      type="button"
                      className="as-link"
                      aria-pressed={it.queue === chosen}
                      onClick={() => onQueue(it.queue)}
                    >
                      {it.queue}
                    </button>
                  </th>
                  {STATES.map((state) => (
                    <td key={state} className="number" data-label={state}>
                      <span className="count" data-tone={it.counts[state] ? state : ""}>
                        {count(it.counts[state])}
                      </span>
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </section>
      <section className="panel flush">
        <header>
          <h2>Jobs of {chosen} then</h2>
          <span className="dim">the newest {SHOWN}</span>
        </header>
        <Trouble error={jobs.error} />
        <ul className="then">
          {jobs.data?.jobs.map((it) => (
            <li key={it.id}>
              <Link className="row" href={jobPath(it.id)}>
                <Badge state={it.state} />
                <span className="type">{it.type}</span>
                <code>{it.id}</code>
                <span className="number attempt">{it.attempt || "–"}</span>
                <span className="number took" />
                <span className="number when">{duration(at - Date.parse(it.submitted_at))} old</span>
              </Link>
            </li>
          ))}
        </ul>
        {jobs.data?.jobs.length === 0 && <Empty title="No job yet" />}
      </section>
    </>
  );
}

const ofAll = (queue: Queue) => STATES.reduce((sum, state) => sum + queue.counts[state], 0);
