/** What a redrive would do: how many jobs, how long, and the first of them with what would change. */
import { useEffect, useRef } from "react";
import { jobPath } from "../api/client";
import { count, duration } from "../lib/format";
import {
  byProblem,
  type Change,
  inShort,
  type Order,
  type Preview,
  type Refusal,
  type Sample,
} from "../lib/redrive";
import { Ago, Loading } from "./basic";
import { Icon } from "./icons";

const CHANGES = 6;
const NAMED = 3;

/** `fresh`: it is of what is typed; else it is shown as what it was. */
export function Look(props: {
  preview: Preview | undefined;
  fresh: boolean;
  looking: boolean;
  order: Order;
}) {
  const { preview, fresh, looking, order } = props;
  const box = useRef<HTMLElement>(null);
  const changed = order.patch !== undefined || order.rate !== undefined;
  // Who changed something wants to see what comes of it; at first there is the form to see.
  useEffect(() => {
    if (fresh && changed) box.current?.scrollIntoView({ block: "nearest" });
  }, [fresh, changed]);
  if (!preview) return looking ? <Loading rows={3} /> : null;
  const { samples, refusals } = preview;
  const state = order.filter.state ?? "failed";
  return (
    <section ref={box} className="look" data-fresh={fresh} aria-label="What would happen" aria-busy={looking}>
      <p role="status">
        <Headline preview={preview} />
        {!fresh && <span className="dim"> {looking ? "Looking…" : "That was before your changes."}</span>}
      </p>
      {samples.length > 0 && (
        <ul className="samples" tabIndex={0} aria-label="The first of them">
          {samples.map((it) => (
            <SampleRow key={it.job.id} sample={it} patched={order.patch !== undefined} />
          ))}
          {preview.count > samples.length && (
            <li className="dim">and {count(preview.count - samples.length)} more</li>
          )}
        </ul>
      )}
      <Refusals many={preview.refused} refusals={refusals} told="cannot be submitted and are left out" />
      {preview.removed > 0 && (
        <p className="dim">
          {count(preview.removed)} {state} {preview.removed === 1 ? "job was" : "jobs were"} removed by
          retention and are not among them.
        </p>
      )}
    </section>
  );
}

function Headline({ preview }: { preview: Preview }) {
  const { count: many, complete, seconds } = preview;
  if (many === 0) return <b>No job would be submitted.</b>;
  return (
    <>
      <b>
        {complete ? "" : "At least "}
        {count(many)} {many === 1 ? "job" : "jobs"}
      </b>{" "}
      would be submitted again
      {seconds !== null && `, in ${duration(seconds * 1000)} at this rate`}.
      {!complete && " Counting all of them takes too long."}
    </>
  );
}

function SampleRow({ sample: { job, changes, sealed }, patched }: { sample: Sample; patched: boolean }) {
  return (
    <li>
      <p>
        <a href={jobPath(job.id)} target="_blank" rel="noreferrer">
          {job.type}
        </a>
        <code>{job.id}</code>
        <Ago at={job.submitted_at} />
      </p>
      {sealed && patched && <p className="dim">Its payload is sealed: it changes, and is not shown.</p>}
      {!sealed && patched && changes.length === 0 && <p className="dim">Nothing changes in it.</p>}
      {changes.length > 0 && (
        <ul className="changes">
          {changes.slice(0, CHANGES).map((it) => (
            <ChangeRow key={it.path} change={it} />
          ))}
          {changes.length > CHANGES && <li className="dim">and {changes.length - CHANGES} more changes</li>}
        </ul>
      )}
    </li>
  );
}

function ChangeRow({ change: { path, before, after } }: { change: Change }) {
  return (
    <li>
      <code>{path || "payload"}</code>
      {before === undefined ? <span className="dim">new</span> : <del>{inShort(before)}</del>}
      {after === undefined ? (
        <span className="dim">taken away</span>
      ) : (
        <span>
          {before !== undefined && <span className="dim">→ </span>}
          <ins>{inShort(after)}</ins>
        </span>
      )}
    </li>
  );
}

/** Jobs of which no copy could be made, by the reason. */
export function Refusals(props: { many: number; refusals: Refusal[]; told: string }) {
  const { many, refusals, told } = props;
  if (many === 0) return null;
  return (
    <div className="refusals">
      <p>
        <Icon name="failures" /> {count(many)} {told}
        {many > refusals.length && `; why, of the first ${refusals.length}:`}
      </p>
      <ul>
        {byProblem(refusals).map(({ problem, ids }) => (
          <li key={problem}>
            {problem}
            <span className="dim">
              {ids.slice(0, NAMED).map((id) => (
                <a key={id} href={jobPath(id)} target="_blank" rel="noreferrer">
                  <code>{id}</code>
                </a>
              ))}
              {ids.length > NAMED && `and ${ids.length - NAMED} more`}
            </span>
          </li>
        ))}
      </ul>
    </div>
  );
}
