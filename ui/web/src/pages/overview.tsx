/** All queues at a glance: what waits, what runs, how fast, how late. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { api } from "../api/client";
import { queuesQuery, useQueues, workersQuery } from "../api/queries";
import { type Queue, STATES } from "../api/types";
import { count, duration, rate } from "../lib/format";
import { type Second, total } from "../lib/seconds";
import { Button, Figure, Loading, PageHead, Trouble } from "../parts/basic";
import { useMayOperate } from "../parts/here";
import { Icon } from "../parts/icons";
import { Snippets } from "../parts/snippets";
import { Spark } from "../parts/spark";
import { doing } from "../parts/toast";
import { Link } from "../router";
import { Charts, useSeconds } from "./overview-charts";

const BARS = 20;
const BAR_S = 3;
const LATE_S = 5;
const FIRST = {
  queue: "ai",
  type: "ai.language",
  payload: { text: "Which language is this sentence in?" },
};

export function Overview() {
  const { data: queues, error, refetch } = useQueues();
  if (error && !queues) return <Trouble error={error} again={refetch} />;
  if (!queues) {
    return (
      <>
        <PageHead title="Overview" />
        <Loading rows={8} />
      </>
    );
  }
  const begun = queues.some((it) => it.totals.submitted || STATES.some((state) => it.counts[state]));
  return begun ? <Queues queues={queues} /> : <Welcome />;
}

function Queues({ queues }: { queues: Queue[] }) {
  const seconds = useSeconds(queues);
  return (
    <>
      <PageHead
        title="Overview"
        note={queues.length === 1 ? "1 queue, live" : `${count(queues.length)} queues, live`}
      />
      <Totals queues={queues} />
      <Charts queues={queues} seconds={seconds} />
      <QueueTable queues={queues} seconds={seconds} />
    </>
  );
}

/** Where no job was ever submitted: how to submit the first. */
function Welcome() {
  const { data: workers } = useQuery(workersQuery);
  return (
    <>
      <PageHead title="Welcome" note="Everything runs, and no job was submitted yet." />
      <div className="welcome">
        <Snippets job={FIRST} title="Submit the first one" />
        <section className="panel">
          <header>
            <h2>It appears here by itself</h2>
          </header>
          <p>
            Each thing that happens to a job is written down as an event; this page shows them as they come. A
            job waits for a worker, runs, and completes, or it is tried again, or it has failed: its page
            tells which, when, and why.
          </p>
          <p className="dim">
            {workers?.length
              ? `${count(workers.length)} ${workers.length === 1 ? "worker waits" : "workers wait"} for work.`
              : "No worker is alive: start one with penstock worker."}
          </p>
          <div className="actions">
            <Link className="button primary" href={`/submit?type=${FIRST.type}`}>
              <Icon name="submit" /> Submit from a form
            </Link>
            <Link className="button" href="/workers">
              <Icon name="workers" /> Workers
            </Link>
          </div>
        </section>
      </div>
    </>
  );
}

function Totals({ queues }: { queues: Queue[] }) {
  const { data: workers } = useQuery(workersQuery);
  const sum = (of: (queue: Queue) => number) => queues.reduce((total, it) => total + of(it), 0);
  const lag = Math.max(0, ...queues.map((it) => it.lag_s));
  const waiting = sum((it) => it.counts.waiting);
  // Counts come at once, ages with the next look: nothing waits, so nothing is old.
  const oldest = waiting ? Math.max(0, ...queues.map((it) => it.oldest_waiting_s ?? 0)) : 0;
  const active = sum((it) => it.counts.active);
  const completed = sum((it) => it.rates.last_minute.completed);
  const failed = sum((it) => it.counts.failed);
  const ended = sum((it) => it.rates.last_5_minutes.completed + it.rates.last_5_minutes.failed);
  const lost = sum((it) => it.rates.last_5_minutes.failed);
  return (
    <dl className="figures">
      <Figure name="Waiting" value={count(waiting)} tone="waiting" />
      <Figure name="Running" value={count(active)} {...(active > 0 && { tone: "active" })} />
      <Figure name="Failed" value={count(failed)} {...(failed > 0 && { tone: "failed" })} />
      <Figure name="Completed per s" value={rate(completed)} {...(completed > 0 && { tone: "completed" })} />
      <Figure name="Failing, last 5 m" value={ended ? `${((100 * lost) / ended).toFixed(1)} %` : "–"} />
      <Figure name="Longest wait" value={oldest ? duration(oldest * 1000) : "–"} />
      <Figure name="Workers" value={workers ? count(workers.filter((it) => !it.leaving).length) : "–"} />
      <Figure name="Projection lag" value={duration(lag * 1000)} {...(lag > LATE_S && { tone: "failed" })} />
    </dl>
  );
}

function QueueTable({ queues, seconds }: { queues: Queue[]; seconds: Second[] }) {
  const recent = seconds.slice(-BARS * BAR_S);
  return (
    <section className="panel flush">
      <header>
        <h2>Queues</h2>
      </header>
      <div className="table-room" tabIndex={0} role="region" aria-label="Queues">
        <table className="queues">
          <thead>
            <tr>
              <th>Queue</th>
              {STATES.map((state) => (
                <th key={state} className="number">
                  {state}
                </th>
              ))}
              <th className="number">per s</th>
              <th>last minute</th>
              <th
                className="number"
                title="From ready to started, last 5 minutes: median and 95th percentile"
              >
                wait p50 · p95
              </th>
              <th className="number" title="Run time of attempts, last 5 minutes: median and 95th percentile">
                run p50 · p95
              </th>
              <th />
            </tr>
          </thead>
          <tbody>
            {queues.map((queue) => (
              <QueueRow key={queue.queue} queue={queue} bars={bars(recent, queue.queue)} />
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

/** What was completed, three seconds a bar. */
const bars = (recent: Second[], queue: string) =>
  Array.from({ length: BARS }, (_, n) =>
    recent
      .slice(n * BAR_S, (n + 1) * BAR_S)
      .reduce((sum, it) => sum + (total(it, "completed", queue) ?? 0), 0),
  );

function QueueRow({ queue: it, bars }: { queue: Queue; bars: number[] }) {
  const wait = it.wait_ms.last_5_minutes;
  const run = it.run_ms.last_5_minutes;
  return (
    <tr>
      <th scope="row">
        <Link href={`/jobs?queue=${it.queue}`}>{it.queue}</Link>
        {it.paused && (
          <span className="badge" data-state="delayed">
            paused
          </span>
        )}
        {it.lag_s > LATE_S && (
          <span className="badge" data-state="failed">
            {duration(it.lag_s * 1000)} behind
          </span>
        )}
      </th>
      {STATES.map((state) => (
        <td key={state} className="number" data-label={state}>
          <Link
            href={`/jobs?queue=${it.queue}&state=${state}`}
            className="count"
            data-tone={it.counts[state] ? state : ""}
          >
            {count(it.counts[state])}
          </Link>
        </td>
      ))}
      <td className="number" data-label="per s">
        {rate(it.rates.last_minute.completed)}
      </td>
      <td>
        <Spark values={bars} label={`Completed in ${it.queue} over the last minute`} tone="completed" />
      </td>
      <td className="number" data-label="wait p50 · p95">
        {wait.count ? `${duration(wait.p50)} · ${duration(wait.p95)}` : "–"}
      </td>
      <td className="number" data-label="run p50 · p95">
        {run.count ? `${duration(run.p50)} · ${duration(run.p95)}` : "–"}
      </td>
      <td className="end">
        <PauseButton queue={it} />
      </td>
    </tr>
  );
}

function PauseButton({ queue: { queue, paused } }: { queue: Queue }) {
  const client = useQueryClient();
  const may = useMayOperate();
  const act = paused ? "resume" : "pause";
  const turn = async () => {
    await doing(api(`/queues/${queue}/${act}`, "POST"), `${queue} ${paused ? "goes on" : "is paused"}`);
    client.setQueryData(queuesQuery.queryKey, (old) =>
      old?.map((it) => (it.queue === queue ? { ...it, paused: !paused } : it)),
    );
  };
  if (!may) return null;
  return (
    <Button kind="quiet" icon={paused ? "play" : "pause"} aria-label={`${act} ${queue}`} onClick={turn}>
      {paused ? "Resume" : "Pause"}
    </Button>
  );
}
