/** What failed, by kind of failure; to look at, to run again, to lay to rest. */
import { useQueries, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, jobPath } from "../api/client";
import { useChanges } from "../api/feed";
import { useQueues } from "../api/queries";
import type { FailureGroup, FailureList } from "../api/types";
import { sharedWords } from "../lib/failures";
import { count } from "../lib/format";
import { Ago, Button, Empty, Loading, PageHead, Trouble } from "../parts/basic";
import { type Act, BulkDialog } from "../parts/bulk";
import { useMayOperate } from "../parts/here";
import { Spark } from "../parts/spark";
import { Link } from "../router";

const FRESH_MS = 10_000;

export default function Failures() {
  const client = useQueryClient();
  const { data: queues } = useQueues();
  const lists = useQueries({
    queries: (queues ?? []).map(({ queue }) => ({
      queryKey: ["failures", queue],
      queryFn: () => api<FailureList>(`/queues/${queue}/failures`),
      refetchInterval: FRESH_MS,
    })),
  });
  useChanges(({ jobs }) => {
    const queue = jobs.find((it) => it.state === "failed")?.queue;
    if (queue) client.invalidateQueries({ queryKey: ["failures", queue] }, { cancelRefetch: false });
  });
  const read = lists.flatMap((it) => it.data ?? []);
  const groups = read
    .flatMap(({ queue, groups }) => groups.map((group) => ({ queue, group })))
    .sort((a, b) => b.group.count - a.group.count);
  const sum = (of: "failed" | "looked_at") => read.reduce((total, it) => total + it[of], 0);
  const missing = sum("failed") - sum("looked_at");
  const broken = lists.find((it) => it.error);
  return (
    <>
      <PageHead
        title="Failures"
        note={
          read.length > 0 &&
          `${count(groups.length)} kinds, ${count(sum("failed"))} jobs${missing > 0 ? ", the newest of them grouped" : ""}`
        }
      />
      <Trouble error={broken?.error} again={() => broken?.refetch()} />
      {!queues || lists.some((it) => it.isPending) ? <Loading /> : null}
      {lists.every((it) => it.data) && groups.length === 0 && (
        <Empty title="Nothing has failed">All that ended, ended well.</Empty>
      )}
      <div className="groups">
        {groups.map(({ queue, group }) => (
          <GroupCard key={`${queue} ${group.error} ${group.message}`} queue={queue} group={group} />
        ))}
      </div>
    </>
  );
}

function GroupCard({ queue, group }: { queue: string; group: FailureGroup }) {
  const may = useMayOperate();
  const [act, setAct] = useState<Act | null>(null);
  const types = Object.keys(group.types);
  const one = types.length === 1 ? (types[0] ?? "") : "";
  const filter = {
    queue,
    state: "failed",
    error: sharedWords(group.error, group.message),
    ...(one && { type: one }),
  };
  return (
    <article className="panel group">
      <header>
        <span className="many">{count(group.count)}</span>
        <div>
          <h2>{group.error}</h2>
          <p title={group.sample}>{group.sample}</p>
        </div>
        <Spark values={group.bars} label={`${group.count} failures over time`} tone="failed" />
      </header>
      <footer>
        <code>{types.join(", ")}</code>
        <span className="dim">
          {Object.keys(group.reasons).join(", ")}; first <Ago at={group.first_at} />, last{" "}
          <Ago at={group.last_at} />
        </span>
        <span className="actions">
          <Link className="button quiet" href={`/jobs?${new URLSearchParams(filter)}`}>
            Show jobs
          </Link>
          <Link className="button quiet" href={jobPath(group.jobs[0] ?? "")}>
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
