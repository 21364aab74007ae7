/** Do something to all jobs that fit a filter: count first, then progress, and a stop.
 *
 * The server counts and acts; the operation is itself a job, and goes on when this page is closed.
 */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, jobPath } from "../api/client";
import { jobQuery } from "../api/queries";
import type { JobRow } from "../api/types";
import type { BulkFilter } from "../lib/filter";
import { count, moment } from "../lib/format";
import { Link } from "../router";
import { Button, Dialog, Loading, Trouble } from "./basic";
import { doing } from "./toast";

export type Act = "retry" | "discard" | "cancel" | "promote";

const WORDS: Record<Act, { title: string; told: string; go: string }> = {
  retry: { title: "Run again", told: "will run again, from the beginning", go: "Run them again" },
  discard: { title: "Discard", told: "will be laid to rest, as cancelled", go: "Discard them" },
  cancel: { title: "Cancel", told: "will be cancelled; those that run are told to stop", go: "Cancel them" },
  promote: { title: "Run now", told: "will run as soon as a worker is free", go: "Run them now" },
};
const SHOWN = 5;

export function BulkDialog(props: { act: Act | null; filter: BulkFilter; onClose: () => void }) {
  const { act, filter, onClose } = props;
  const [operation, setOperation] = useState<string | null>(null);
  const close = () => {
    setOperation(null);
    onClose();
  };
  return (
    <Dialog title={act ? WORDS[act].title : ""} open={act !== null} onClose={close}>
      {act && !operation && <Count act={act} filter={filter} onStart={setOperation} onClose={close} />}
      {operation && <Run id={operation} onClose={close} />}
    </Dialog>
  );
}

type Preview = { count: number; complete: boolean; samples: JobRow[] };

function Count(props: { act: Act; filter: BulkFilter; onStart: (id: string) => void; onClose: () => void }) {
  const { act, filter, onStart, onClose } = props;
  const [error, setError] = useState<unknown>(null);
  const preview = useQuery({
    queryKey: ["bulk", act, filter],
    queryFn: () => api<Preview>("/bulk", "POST", { act, filter, dry_run: true }),
    gcTime: 0,
  });
  const start = () =>
    api<{ id: string }>("/bulk", "POST", { act, filter }).then((made) => onStart(made.id), setError);
  if (preview.error) return <Trouble error={preview.error} again={preview.refetch} />;
  if (!preview.data) return <Loading rows={3} />;
  const { samples, complete } = preview.data;
  const many = preview.data.count;
  return (
    <div className="ask">
      <p>
        <b>
          {complete ? "" : "At least "}
          {count(many)} {many === 1 ? "job" : "jobs"}
        </b>{" "}
        {many > 0 ? WORDS[act].told : "fit"}.
      </p>
      <p className="dim">
        Those that fit:{" "}
        {Object.entries(filter)
          .map(([name, value]) => `${name} ${told(name, value)}`)
          .join(", ")}
      </p>
      <ul className="samples">
        {samples.slice(0, SHOWN).map((it) => (
          <li key={it.id}>
            <Link href={jobPath(it.id)}>{it.type}</Link> <code>{it.id}</code>
          </li>
        ))}
        {many > SHOWN && <li className="dim">and {count(many - Math.min(SHOWN, samples.length))} more</li>}
      </ul>
      <Trouble error={error} />
      <div className="actions">
        <Button onClick={onClose}>Leave them</Button>
        {many > 0 && (
          <Button kind="primary" onClick={start}>
            {WORDS[act].go}
          </Button>
        )}
      </div>
    </div>
  );
}

function Run({ id, onClose }: { id: string; onClose: () => void }) {
  const client = useQueryClient();
  const { data: job, error } = useQuery({ ...jobQuery(id), refetchInterval: 500 });
  const over = job && ["completed", "failed", "cancelled"].includes(job.state);
  const done = (job?.result ?? job?.progress?.data ?? null) as { matched?: number; done?: number } | null;
  const leave = () => {
    client.invalidateQueries();
    onClose();
  };
  return (
    <div className="ask">
      <Trouble error={error} />
      <div className="progress-line">
        <progress
          max={1}
          {...(job && { value: over ? 1 : (job.progress?.fraction ?? 0) })}
          aria-label="Progress"
        />
        <b>{over ? job.state : "running"}</b>
      </div>
      <p className="dim">
        {done ? `${count(done.done ?? 0)} done of ${count(done.matched ?? 0)} that fit. ` : ""}
        It is a job itself: <Link href={jobPath(id)}>{id}</Link>
      </p>
      <div className="actions">
        {!over && (
          <Button
            kind="danger"
            icon="cancel"
            onClick={() => doing(api(`${jobPath(id)}/cancel`, "POST"), "Stopped")}
          >
            Stop
          </Button>
        )}
        <Button kind="primary" onClick={leave}>
          {over ? "Done" : "Leave it running"}
        </Button>
      </div>
    </div>
  );
}

function told(name: string, value: string): string {
  if (name === "error") return `has “${value}”`;
  return name === "since" || name === "until" ? moment(value) : value;
}
