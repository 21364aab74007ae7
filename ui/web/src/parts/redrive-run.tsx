/** A redrive under way: what it has sent so far, and where the new jobs are. */
import { api } from "../api/client";
import type { Job, State } from "../api/types";
import { count } from "../lib/format";
import { copies, type Order, type Redriven } from "../lib/redrive";
import { Link } from "../router";
import { Figure } from "./basic";
import { Operation } from "./operation";
import { Refusals } from "./redrive-look";
import "../styles/redrive.css";

/** `state`: how it stood when it was asked for; it may have been asked for before. */
export type Begun = { id: string; state: State; order: Order };

export function RedriveRun({ begun, onClose }: { begun: Begun; onClose: () => void }) {
  const { id, state, order } = begun;
  return (
    <Operation<Redriven>
      id={id}
      told={(done, job) => (
        <>
          {state === "completed" && (
            <p role="status">It was done before under this name, so nothing was submitted now.</p>
          )}
          <Sent done={done} order={order} job={job} onLeave={onClose} />
        </>
      )}
      onAgain={() => api("/redrive", "POST", order)}
      onClose={onClose}
    />
  );
}

/** What was sent, what was not and why, and where the new jobs are. */
export function Sent(props: {
  done: Redriven | null;
  order: Order;
  job: Job | undefined;
  onLeave?: () => void;
}) {
  const { done, order, job, onLeave } = props;
  const figure = (name: keyof Redriven & ("matched" | "sent" | "known" | "refused")) =>
    count(done?.[name] ?? 0);
  return (
    <div className="sent">
      <dl className="figures">
        <Figure name="Fit" value={figure("matched")} />
        <Figure name="Submitted again" value={figure("sent")} />
        <Figure name="Sent before" value={figure("known")} />
        <Figure name="Refused" value={figure("refused")} {...(done?.refused && { tone: "failed" })} />
      </dl>
      <Refusals many={done?.refused ?? 0} refusals={done?.refusals ?? []} told="could not be submitted" />
      {done && done.gone > 0 && (
        <p className="dim">{count(done.gone)} were removed by retention before their turn.</p>
      )}
      {job && done && done.sent + done.known > 0 && (
        <p className="dim">
          <Link className="more" href={copies(order.filter, order.id || job.id)} onClick={onLeave}>
            Show the new jobs
          </Link>
          . Each names its original.
        </p>
      )}
    </div>
  );
}
