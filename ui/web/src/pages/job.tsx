/** One job: what it is, its life so far, live; what it was given and what it answered; and what to do. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { isJobId } from "../api/client";
import { watchJob } from "../api/feed";
import { eventsQuery, jobQuery } from "../api/queries";
import type { Job, JobEvent } from "../api/types";
import { duration, moment } from "../lib/format";
import { eventsBy, stateAfter } from "../lib/timeline";
import { Ago, Badge, Copy, Empty, Loading, PageHead, Trouble } from "../parts/basic";
import { Icon } from "../parts/icons";
import { JsonView } from "../parts/json";
import { Snippets } from "../parts/snippets";
import { Link, useSearch } from "../router";
import { Actions } from "./job-actions";
import { History } from "./job-history";
import { Kin } from "./job-kin";
import { Mail, Pictures, Words } from "./job-looks";
import { Redrive } from "./job-redrive";
import { Timeline } from "./job-timeline";

export default function JobPage({ id }: { id: string }) {
  const job = useQuery(jobQuery(id));
  const events = useQuery(eventsQuery(id));
  useLiveJob(id);
  const [params] = useSearch();
  const [chosen, setUpto] = useState<number | null>();
  if (job.error) {
    return (
      <>
        <Trouble error={job.error} again={job.refetch} />
        <Empty title="This job cannot be shown">
          It may never have been, or retention has removed it. <Link href="/jobs">To the jobs</Link>
        </Empty>
      </>
    );
  }
  if (!job.data || !events.data) return <Loading rows={10} />;
  // Who comes from a moment of the past sees the job as it was then.
  const then = Number(params.get("at"));
  const upto = chosen === undefined && then ? eventsBy(events.data, then) : (chosen ?? null);
  const shown = upto === null ? events.data : events.data.slice(0, upto);
  return (
    <>
      <Head job={job.data} />
      {upto !== null && <AsItWas events={shown} onBack={() => setUpto(null)} />}
      <div className="job">
        <div className="job-main">
          <Timeline events={shown} until={upto === null ? null : Date.parse(shown.at(-1)?.at ?? "")} />
          {upto === null && <Progress job={job.data} />}
          {upto === null && <Ended job={job.data} />}
          <Redrive job={job.data} />
          <Pictures result={job.data.result} />
          <Mail job={job.data} />
          <Words job={job.data} />
          <JsonView label="Payload" value={job.data.payload} />
          {job.data.result !== null && upto === null && <JsonView label="Result" value={job.data.result} />}
          <Snippets job={job.data} title="Another one like it" />
        </div>
        <div className="job-side">
          <Facts job={job.data} />
          <Kin job={job.data} />
          <History events={events.data} upto={upto} onUpto={setUpto} />
        </div>
      </div>
    </>
  );
}

/** New events go into what was read; the job is read again when something happened to it. */
function useLiveJob(id: string) {
  const client = useQueryClient();
  useEffect(() => {
    if (!isJobId(id)) return;
    const { queryKey } = eventsQuery(id);
    const anew = () => {
      client.invalidateQueries({ queryKey });
      client.invalidateQueries({ queryKey: ["job", id] });
    };
    const add = (told: JobEvent[]) => {
      if (told.length === 0) return;
      client.setQueryData(queryKey, (old) => {
        const known = new Set(old?.map((it) => it.position));
        return old && [...old, ...told.filter((it) => !known.has(it.position))];
      });
      client.invalidateQueries({ queryKey: ["job", id] });
    };
    return watchJob(id, add, anew);
  }, [client, id]);
}

function Head({ job }: { job: Job }) {
  return (
    <PageHead
      title={
        <>
          {job.type} <Badge state={job.state} />
        </>
      }
      note={
        <>
          <Link href={`/jobs?queue=${job.queue}`}>
            <Icon name="back" /> {job.queue}
          </Link>
          <code>{job.id}</code>
          <Copy text={job.id} label="Copy id" />
        </>
      }
    >
      <Actions job={job} />
    </PageHead>
  );
}

function AsItWas({ events, onBack }: { events: JobEvent[]; onBack: () => void }) {
  const state = stateAfter(events);
  return (
    <p className="past" role="status">
      <Icon name="schedules" /> As it was at {moment(events.at(-1)?.at ?? "")}:{" "}
      {state && <Badge state={state} />}
      <button type="button" onClick={onBack}>
        Back to now
      </button>
    </p>
  );
}

function Progress({ job }: { job: Job }) {
  const { progress, state } = job;
  if (!progress || state !== "active") return null;
  const percent = Math.round(progress.fraction * 100);
  const data = progress.data as { text?: string } | null;
  return (
    <section className="panel">
      <div className="progress-line">
        <progress max={100} value={percent} aria-label="Progress" />
        <b>{percent} %</b>
        <span className="dim">{progress.message}</span>
      </div>
      {typeof data?.text === "string" && <p className="tokens">{data.text}</p>}
    </section>
  );
}

function Ended({ job: { error } }: { job: Job }) {
  if (!error) return null;
  return (
    <section className="panel error">
      <header>
        <h2>{error.error}</h2>
        {error.reason && (
          <span className="badge" data-state="failed">
            {error.reason}
          </span>
        )}
      </header>
      <p>{error.message}</p>
      {error.traceback && (
        <details>
          <summary>Traceback</summary>
          <pre tabIndex={0}>{error.traceback}</pre>
        </details>
      )}
    </section>
  );
}

function Facts({ job }: { job: Job }) {
  const facts: [string, React.ReactNode][] = [
    ["Submitted", <Ago key="at" at={job.submitted_at} />],
    ["By", job.by || "–"],
    ["Attempt", `${job.attempt} of ${job.attempts}`],
    ["Waited", duration(job.wait_ms)],
    ["Ran", duration(job.run_ms)],
    ["Priority", job.priority],
    ["Timeout", duration(job.timeout * 1000)],
  ];
  if (job.state === "delayed") facts.push(["Due", <Ago key="due" at={job.ready_at} />]);
  if (job.tags.length > 0) facts.push(["Tags", job.tags.join(", ")]);
  if (job.key) facts.push(["Idempotency key", <code key="key">{job.key}</code>]);
  if (job.group) facts.push(["Group", job.group]);
  if (job.misfits > 0) facts.push(["Misfit events", job.misfits]);
  return (
    <section className="panel">
      <dl className="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
