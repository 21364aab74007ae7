/** Time travel: all queues and their jobs as they were at a moment; told forward at a chosen speed.
 *
 * The server folds the log up to that moment; this page only asks. What ended when stands over the slider,
 * as far back as the projector keeps it: one sees where to look.
 */
import { keepPreviousData, useQueries, useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { api, jobPath } from "../api/client";
import { spanQuery } from "../api/queries";
import { type PastPage, type Queue, type Series, STATES } from "../api/types";
import { localTime } from "../lib/filter";
import { count, duration, moment } from "../lib/format";
import { type Ending, endings } from "../lib/series";
import { Badge, Button, Empty, Loading, PageHead, Trouble } from "../parts/basic";
import { Icon } from "../parts/icons";
import { Link, useSearch } from "../router";

const FRAME_MS = 500;
const SPEEDS = [1, 10, 60, 600];
const SHOWN = 30;
const STEPS = 1_000;
const [WIDE, HIGH] = [1_000, 30]; // what the bars are drawn on, stretched to what there is
const LEAST = 0.12; // what failed is seen, however few

export default function Travel() {
  const [params, change] = useSearch();
  const span = useQuery(spanQuery);
  const from = Date.parse(span.data?.from_at ?? "");
  const to = Date.parse(span.data?.to_at ?? "");
  const at = Math.min(to, Math.max(from, Number(params.get("at")) || to));
  const setAt = (ms: number) => change({ at: String(Math.round(ms)) });
  if (span.error) return <Trouble error={span.error} again={span.refetch} />;
  if (!span.data) return <Loading />;
  if (!span.data.from_at) return <Empty title="The log is empty">There is no past to look at yet.</Empty>;
  return (
    <>
      <PageHead
        title="Time travel"
        note={`${span.data.archived ? "Log and archive go" : "The log goes"} back ${duration(to - from)}.`}
      />
      <Slider from={from} to={to} at={at} onAt={setAt} queues={Object.keys(span.data.queues)} />
      <Then at={at} queue={params.get("queue") ?? ""} onQueue={(queue) => change({ queue })} />
    </>
  );
}

type Moments = { from: number; to: number; at: number; onAt: (ms: number) => void };

function Slider({ from, to, at, onAt, queues }: Moments & { queues: string[] }) {
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
      <select
        aria-label="Speed"
        title="Speed"
        value={speed}
        onChange={(event) => setSpeed(Number(event.target.value))}
      >
        {SPEEDS.map((it) => (
          <option key={it} value={it}>
            {it} ×
          </option>
        ))}
      </select>
      <GoTo key={at} from={from} to={to} at={at} onAt={onAt} />
      <div className="ages-past">
        <Endings from={from} to={to} queues={queues} />
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
        <small>{moment(from)}</small>
        <small>{moment(to)}</small>
      </div>
    </section>
  );
}

/** A moment that is known, to the second. It counts with Enter, or when the field is left. */
function GoTo({ from, to, at, onAt }: Moments) {
  const shown = localTime(new Date(at).toISOString(), true);
  const [typed, setTyped] = useState(shown);
  const tell = () => {
    const ms = Date.parse(typed);
    if (typed !== shown && !Number.isNaN(ms)) onAt(Math.min(to, Math.max(from, ms)));
  };
  return (
    <input
      type="datetime-local"
      aria-label="Go to"
      step={1}
      value={typed}
      onChange={(event) => setTyped(event.target.value)}
      onBlur={tell}
      onKeyDown={(event) => event.key === "Enter" && tell()}
    />
  );
}

/** How many ended when, and how many of them failed; all queues together. */
function Endings({ from, to, queues }: { from: number; to: number; queues: string[] }) {
  const series = useQueries({
    queries: queues.map((queue) => ({
      queryKey: ["series-of", queue, from, to],
      queryFn: () => api<Series>(`/queues/${queue}/series?from=${from}&to=${to}`),
      staleTime: Number.POSITIVE_INFINITY,
      enabled: from < to,
    })),
    combine: (all) => all.flatMap((it) => it.data ?? []),
  });
  const bars = endings(series, from, to);
  const part = ({ x, width }: Ending, height: number, tone: string) => (
    <rect data-tone={tone} x={x * WIDE} width={width * WIDE} y={(1 - height) * HIGH} height={height * HIGH} />
  );
  return (
    <svg
      className="endings"
      viewBox={`0 0 ${WIDE} ${HIGH}`}
      preserveAspectRatio="none"
      role="img"
      aria-label="What ended when: completed and failed jobs"
    >
      {bars.map((it) => (
        <g key={it.x}>
          {part(it, it.completed + it.failed, "completed")}
          {it.failed > 0 && part(it, Math.max(LEAST, it.failed), "failed")}
        </g>
      ))}
    </svg>
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
    queryFn: () => api<PastPage>(`/jobs/${chosen}?at=${at}&limit=${SHOWN}`),
    enabled: Boolean(chosen),
    placeholderData: keepPreviousData,
    staleTime: Number.POSITIVE_INFINITY,
  });
  const missing = jobs.data?.missing ?? 0;
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
          <span className="dim">
            the newest {SHOWN}
            {missing > 0 && `; ${count(missing)} of that time were removed by retention since`}
          </span>
        </header>
        <Trouble error={jobs.error} />
        <ul className="then">
          {jobs.data?.jobs.map((it) => (
            <li key={it.id}>
              <Link className="row" href={`${jobPath(it.id)}?at=${at}`}>
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
