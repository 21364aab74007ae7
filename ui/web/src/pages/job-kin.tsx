/** Where a job comes from and what came of it: the job it was made from, its flow with what it waits for
 * and what waits for it, and the jobs that were made from it. */
import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { isJobId, jobPath } from "../api/client";
import { childrenQuery, flowQuery, jobQuery } from "../api/queries";
import type { FlowDetail, FlowNode, Job } from "../api/types";
import { count } from "../lib/format";
import { neighbours } from "../lib/layers";
import { Badge } from "../parts/basic";
import { Link } from "../router";

const SHOWN = 10;

export function Kin({ job }: { job: Job }) {
  const ofJob = isJobId(job.origin);
  const { data: made } = useQuery(childrenQuery(job.id));
  const children = made?.jobs ?? [];
  const partly = made?.complete === false;
  if (!job.origin && children.length === 0 && !partly) return null;
  return (
    <section className="panel kin">
      <header>
        <h2>Related</h2>
      </header>
      {ofJob && <MadeFrom id={job.origin} />}
      {job.origin && !ofJob && <InFlow id={job.origin} job={job.id} />}
      {(children.length > 0 || partly) && (
        <Group name="Made from this one">
          {children.slice(0, SHOWN).map((it) => (
            <Row key={it.id} state={it.state} name={it.id} href={jobPath(it.id)} />
          ))}
        </Group>
      )}
      {(partly || children.length > SHOWN) && (
        <p className="dim">
          {partly && `The ${count(made?.looked_at ?? 0)} jobs of its type that came next were looked at. `}
          <Link className="more" href={`/jobs?queue=${job.queue}&origin=${job.id}`}>
            Search for all
          </Link>
        </p>
      )}
    </section>
  );
}

function MadeFrom({ id }: { id: string }) {
  const { data: origin, error } = useQuery({ ...jobQuery(id), retry: false });
  return (
    <Group name="Made from">
      <Row state={origin?.state} name={id} href={jobPath(id)}>
        {error && "kept no longer"}
      </Row>
    </Group>
  );
}

function InFlow({ id, job }: { id: string; job: string }) {
  const { data: flow, error } = useQuery({ ...flowQuery(id), retry: false });
  const near = neighbours(flow?.nodes ?? [], job);
  return (
    <>
      <Group name={near ? `“${near.node.name}” of the flow` : "Of the flow"}>
        <Row state={flow?.state} name={flow?.name || id} href={`/flows/${id}`}>
          {flow && `${Math.round(flow.progress * 100)} %`}
          {error && "kept no longer"}
        </Row>
      </Group>
      {flow && near && (
        <>
          <Nodes name="Waits for" nodes={near.before} flow={flow} />
          <Nodes name="Wait for it" nodes={near.behind} flow={flow} />
        </>
      )}
    </>
  );
}

function Nodes({ name, nodes, flow }: { name: string; nodes: FlowNode[]; flow: FlowDetail }) {
  if (nodes.length === 0) return null;
  const more = nodes.length - SHOWN;
  return (
    <Group name={name}>
      {nodes.slice(0, SHOWN).map((it) => (
        <Row key={it.name} state={it.state} name={it.name} href={it.job && jobPath(it.job)}>
          {it.type}
        </Row>
      ))}
      {more > 0 && (
        <li>
          <Link className="more" href={`/flows/${flow.id}`}>
            and {count(more)} more
          </Link>
        </li>
      )}
    </Group>
  );
}

function Group({ name, children }: { name: string; children: ReactNode }) {
  return (
    <>
      <h3>{name}</h3>
      <ul>{children}</ul>
    </>
  );
}

function Row(props: {
  state: string | undefined;
  name: string;
  href: string | undefined;
  children?: ReactNode;
}) {
  const { state, name, href, children } = props;
  return (
    <li>
      {state && <Badge state={state} />}
      {href ? (
        <Link href={href} title={name}>
          {name}
        </Link>
      ) : (
        <b>{name}</b>
      )}
      {children && <small>{children}</small>}
    </li>
  );
}
