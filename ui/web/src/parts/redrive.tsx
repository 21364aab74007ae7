/** Submit all jobs that fit a filter again, as new ones: said how, looked at, and only then done.
 *
 * The server looks and acts (ui/redriving.py); the redrive is itself a job, and goes on when this page is
 * closed. What can be submitted is what was looked at: whoever changes something looks again.
 */
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api } from "../api/client";
import type { BulkFilter } from "../lib/filter";
import { count } from "../lib/format";
import { type Draft, nameFor, type Order, orderOf, type Preview } from "../lib/redrive";
import { Button, Dialog, Trouble } from "./basic";
import { Meant } from "./bulk";
import { Fields, isAtField } from "./redrive-fields";
import { Look } from "./redrive-look";
import { type Begun, RedriveRun } from "./redrive-run";

export default function RedriveDialog({ filter, onClose }: { filter: BulkFilter; onClose: () => void }) {
  const [begun, setBegun] = useState<Begun | null>(null);
  return (
    <Dialog title="Submit again as new jobs" open onClose={onClose} wide>
      {begun ? (
        <RedriveRun begun={begun} onClose={onClose} />
      ) : (
        <Ask filter={filter} onBegun={setBegun} onClose={onClose} />
      )}
    </Dialog>
  );
}

type AskProps = { filter: BulkFilter; onBegun: (begun: Begun) => void; onClose: () => void };

function Ask({ filter, onBegun, onClose }: AskProps) {
  const [draft, setDraft] = useState<Draft>(() => blank(nameFor(filter, new Date())));
  const [asked, setAsked] = useState<Order>(() => orderOf(draft, filter) ?? { filter });
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const look = useLook(asked);
  const order = orderOf(draft, filter);
  const problem = error ?? look.error;
  const same = JSON.stringify(order) === JSON.stringify(asked);
  const seen = same && !look.isFetching && !look.error ? look.data : undefined;
  const change = (changes: Partial<Draft>) => {
    setDraft({ ...draft, ...changes });
    setError(null);
  };
  const lookAgain = (event: FormEvent) => {
    event.preventDefault();
    if (same) look.refetch({ cancelRefetch: false });
    else if (order) setAsked(order);
  };
  const submit = () => {
    setBusy(true);
    api<Omit<Begun, "order">>("/redrive", "POST", asked)
      .then((made) => onBegun({ ...made, order: asked }), setError)
      .finally(() => setBusy(false));
  };
  return (
    <>
      <form className="form redrive" onSubmit={lookAgain}>
        <p>
          Unlike running them again, this leaves the jobs as they are and submits a new one for each, linked
          to its original and with another payload if you wish.
        </p>
        <Meant filter={filter} />
        <Fields
          draft={draft}
          change={change}
          problem={problem}
          sample={sampleOf(look.data)}
          type={filter.type}
        />
        <div className="look-head">
          <h3>What would happen</h3>
          <Button type="submit" icon="search" kind={same ? "plain" : "primary"} disabled={!order}>
            {same ? "Look again" : "Look first"}
          </Button>
        </div>
      </form>
      <Look preview={look.data} fresh={seen !== undefined} looking={look.isFetching} order={asked} />
      <Trouble error={isAtField(problem) ? null : problem} />
      <div className="actions">
        <Button onClick={onClose}>Leave them</Button>
        <Button kind="primary" icon="play" disabled={busy || !seen?.count} onClick={submit}>
          {seen ? goes(seen) : "Submit them again"}
        </Button>
      </div>
    </>
  );
}

const blank = (id: string): Draft => ({ patch: "", rate: "", id, archived: false });

/** One of the jobs that fit. */
const sampleOf = (preview?: Preview) => preview?.samples[0]?.job.id ?? preview?.refusals[0]?.id;

const goes = ({ count: many, complete }: Preview) =>
  many === 0
    ? "Nothing to submit"
    : complete
      ? `Submit ${count(many)} ${many === 1 ? "job" : "jobs"} again`
      : "Submit all of them again";

/** A dry run of an order: once, until it is asked for again. */
const useLook = (order: Order) =>
  useQuery({
    queryKey: ["redrive", order],
    queryFn: () => api<Preview>("/redrive", "POST", { ...order, dry_run: true }),
    placeholderData: keepPreviousData,
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0,
  });
