/** Who works, on what, since when; and how to ask one to leave. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { api, jobPath } from "../api/client";
import { workersQuery } from "../api/queries";
import type { Worker } from "../api/types";
import { bytes, count } from "../lib/format";
import { Ago, Button, Empty, Loading, PageHead, Trouble } from "../parts/basic";
import { useMayOperate } from "../parts/here";
import { useNow } from "../parts/now";
import { doing } from "../parts/toast";
import { Link } from "../router";

const SILENT_MS = 5_000;
const JOBS_SHOWN = 12;

export default function Workers() {
  const { data: workers, error, refetch, isPending } = useQuery(workersQuery);
  const slots = workers?.reduce((sum, it) => sum + it.slots, 0) ?? 0;
  const running = workers?.reduce((sum, it) => sum + it.running, 0) ?? 0;
  return (
    <>
      <PageHead
        title="Workers"
        note={workers && `${count(workers.length)} alive, ${count(running)} of ${count(slots)} slots in use`}
      />
      <Trouble error={error} again={refetch} />
      {isPending && !error && <Loading />}
      {workers?.length === 0 && (
        <Empty title="No worker is alive">
          Start one with <code>penstock worker</code>.
        </Empty>
      )}
      <div className="cards">
        {workers?.map((it) => (
          <WorkerCard key={it.name} worker={it} />
        ))}
      </div>
    </>
  );
}

function WorkerCard({ worker: it }: { worker: Worker }) {
  const now = useNow();
  const silent = now - Date.parse(it.seen_at) > SILENT_MS;
  return (
    <article className="panel worker" data-silent={silent}>
      <header>
        <div>
          <h2>{it.name}</h2>
          <p className="dim">
            {it.host} · pid {it.pid} · v{it.version}
          </p>
        </div>
        {it.leaving ? (
          <span className="badge" data-state="delayed">
            leaving
          </span>
        ) : (
          <Drain worker={it} />
        )}
      </header>
      <div className="progress-line">
        <progress max={Math.max(1, it.slots)} value={it.running} aria-label="Slots in use" />
        <span>
          <b>{count(it.running)}</b> of {count(it.slots)}
        </span>
      </div>
      <dl className="facts">
        <div>
          <dt>Queues</dt>
          <dd>{it.queues.join(", ")}</dd>
        </div>
        <div>
          <dt>Memory</dt>
          <dd>{bytes(it.memory)}</dd>
        </div>
        <div>
          <dt>Up since</dt>
          <dd>{it.started_at ? <Ago at={it.started_at} /> : "–"}</dd>
        </div>
        <div>
          <dt>Last sign of life</dt>
          <dd data-bad={silent}>
            <Ago at={it.seen_at} />
          </dd>
        </div>
        {it.stuck > 0 && (
          <div>
            <dt>Stuck threads</dt>
            <dd data-bad>{it.stuck}</dd>
          </div>
        )}
      </dl>
      {it.jobs.length > 0 && (
        <ul className="running">
          {it.jobs.slice(0, JOBS_SHOWN).map((job) => (
            <li key={job.id}>
              <Link href={jobPath(job.id)}>{job.type}</Link>
              <code>{job.id}</code>
              <Ago at={job.since} />
            </li>
          ))}
          {it.running > JOBS_SHOWN && <li className="dim">and {count(it.running - JOBS_SHOWN)} more</li>}
        </ul>
      )}
    </article>
  );
}

function Drain({ worker }: { worker: Worker }) {
  const client = useQueryClient();
  if (!useMayOperate()) return null;
  const drain = async () => {
    await doing(
      api(`/workers/${encodeURIComponent(worker.name)}/drain`, "POST"),
      `${worker.name} takes no more jobs, ends what it runs and leaves`,
    );
    client.invalidateQueries({ queryKey: workersQuery.queryKey });
  };
  return (
    <Button kind="quiet" icon="leave" onClick={drain}>
      Drain
    </Button>
  );
}
