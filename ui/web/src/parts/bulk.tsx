/** Do something to all jobs that fit a filter: count first, then progress, and a stop.
 *
 * The server counts and acts; the operation is itself a job, and goes on when this page is closed.
 */
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { api, jobPath } from "../api/client";
import type { JobRow } from "../api/types";
import type { BulkFilter } from "../lib/filter";
import { count, moment } from "../lib/format";
import { Link } from "../router";
import { Button, Dialog, Loading, Trouble } from "./basic";
import { Operation } from "./operation";

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
      {operation && <Operation id={operation} told={sofar} onClose={close} />}
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
      <Meant filter={filter} />
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

/** Which jobs are meant, in words. */
export function Meant({ filter }: { filter: BulkFilter }) {
  return (
    <p className="dim">
      Those that fit:{" "}
      {Object.entries(filter)
        .map(([name, value]) => `${name} ${told(name, value)}`)
        .join(", ")}
    </p>
  );
}

function sofar(done: { matched: number; done: number } | null) {
  return done && <p className="dim">{`${count(done.done)} done of ${count(done.matched)} that fit.`}</p>;
}

function told(name: string, value: string): string {
  if (name === "error") return `has “${value}”`;
  return name === "since" || name === "until" ? moment(value) : value;
}
