/** What failed, by kind of failure: the newest failed jobs of each queue, grouped; run again or look.
 *
 * The list of failed jobs comes from the server, and each job's error from its own page; ended jobs do
 * not change, so that each is read once.
 */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { api, jobPath } from "../api/client";
import { useChanges } from "../api/feed";
import { useQueues } from "../api/queries";
import type { Job, JobPage, JobRow } from "../api/types";
import { type Group, grouped, histogram, sharedWords } from "../lib/failures";
import { count } from "../lib/format";
import { inTurns } from "../lib/turns";
import { Ago, Button, Empty, Loading, PageHead, Trouble } from "../parts/basic";
import { type Act, BulkDialog } from "../parts/bulk";
import { useMayOperate } from "../parts/here";
import { Spark } from "../parts/spark";
import { Link } from "../router";

const NEWEST = 200;
const AT_ONCE = 8;
const BINS = 24;

export default function Failures() {
  const client = useQueryClient();
  const { data: queues } = useQueues();
  const names = queues?.filter((it) => it.counts.failed > 0).map((it) => it.queue) ?? [];
  const total = queues?.reduce((sum, it) => sum + it.counts.failed, 0) ?? 0;
  const failed = useQuery({
    queryKey: ["failures", names.join()],
    queryFn: () => newest(names),
    enabled: queues !== undefined,
    placeholderData: (old) => old,
  });
  useChanges(({ jobs }) => {
    const known = new Set(failed.data?.map((it) => it.id));
    if (jobs.some((it) => (it.state === "failed") !== known.has(it.id))) {
      client.invalidateQueries({ queryKey: ["failures"] });
    }
  });
  const groups = useMemo(() => grouped(failed.data ?? []), [failed.data]);
  const read = failed.data?.length ?? 0;
  return (
    <>
      <PageHead
        title="Failures"
        note={
          failed.data &&
          (read < total
            ? `${count(groups.length)} kinds among the newest ${count(read)} of ${count(total)} failed jobs`
            : `${count(groups.length)} kinds, ${count(total)} jobs`)
        }
      />
      <Trouble error={failed.error} again={failed.refetch} />
      {failed.isPending && !failed.error && <Loading />}
      {failed.data && groups.length === 0 && (
        <Empty title="Nothing has failed">All that ended, ended well.</Empty>
      )}
      <div className="groups">
        {groups.map((it) => (
          <GroupCard key={it.key} group={it} />
        ))}
      </div>
    </>
  );
}

/** The newest failed jobs of these queues, with their errors. */
async function newest(queues: string[]): Promise<Job[]> {
  const pages = await Promise.all(
    queues.map((queue) => api<JobPage>(`/jobs/${queue}?state=failed&limit=${NEWEST}`)),
  );
  const rows = pages.flatMap((it) => it.jobs);
  const jobs = await inTurns(rows, AT_ONCE, whole);
  return jobs.filter((it): it is Job => it?.state === "failed");
}

const kept = new Map<string, Job>();

async function whole(row: JobRow): Promise<Job | null> {
  const key = row.id + row.updated_at;
  const known = kept.get(key);
  if (known) return known;
  const job = await api<Job>(jobPath(row.id)).catch(() => null); // trimmed meanwhile
  if (job) kept.set(key, { ...job, payload: null, result: null });
  return job;
}

function GroupCard({ group }: { group: Group }) {
  const may = useMayOperate();
  const [act, setAct] = useState<Act | null>(null);
  const words = sharedWords(group.message);
  const filter = {
    queue: group.queue,
    type: group.type,
    state: "failed",
    ...((words || group.error) && { error: words || group.error }),
  };
  const moments = group.jobs.map((it) => Date.parse(it.finished_at ?? it.updated_at));
  const bars = histogram(moments, Date.parse(group.first), Date.parse(group.last), BINS);
  return (
    <article className="panel group">
      <header>
        <span className="many">{count(group.jobs.length)}</span>
        <div>
          <h2>{group.error || "Failed"}</h2>
          <p>{group.message}</p>
        </div>
        <Spark values={bars} label={`${group.jobs.length} failures over their time`} tone="failed" />
      </header>
      <footer>
        <code>{group.type}</code>
        <span className="dim">
          first <Ago at={group.first} />, last <Ago at={group.last} />
        </span>
        <span className="actions">
          <Link className="button quiet" href={`/jobs?queue=${group.queue}&state=failed&type=${group.type}`}>
            Show jobs
          </Link>
          <Link className="button quiet" href={jobPath(group.jobs[0]?.id ?? "")}>
            Newest
          </Link>
          {may && (
            <>
              <Button icon="cancel" onClick={() => setAct("discard")}>
                Discard…
              </Button>
              <Button icon="retry" onClick={() => setAct("retry")}>
                Run again…
              </Button>
            </>
          )}
        </span>
      </footer>
      <BulkDialog act={act} filter={filter} onClose={() => setAct(null)} />
    </article>
  );
}
