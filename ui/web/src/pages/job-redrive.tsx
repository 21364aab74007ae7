/** A redrive as a job: what it has sent, whoever began it. */
import type { Job } from "../api/types";
import type { Order, Redriven } from "../lib/redrive";
import { Sent } from "../parts/redrive-run";

const TYPE = "penstock.redrive";

export function Redrive({ job }: { job: Job }) {
  if (job.type !== TYPE) return null;
  const order = job.payload as Partial<Order>;
  if (!order.filter) return null; // it is sealed
  const done = (job.result ?? job.progress?.data ?? null) as Redriven | null;
  return (
    <section className="panel">
      <header>
        <h2>Submitted again</h2>
      </header>
      <Sent done={done} order={{ ...order, filter: order.filter }} job={job} />
    </section>
  );
}
