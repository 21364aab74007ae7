/** Flows: graphs of jobs; what waits for what, and how far each is. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { api, jobPath } from "../api/client";
import { flowQuery, flowsQuery } from "../api/queries";
import type { FlowDetail, FlowNode } from "../api/types";
import { count } from "../lib/format";
import { layers } from "../lib/layers";
import { Ago, Badge, Button, Empty, Loading, PageHead, Trouble } from "../parts/basic";
import { useMayOperate } from "../parts/here";
import { Icon } from "../parts/icons";
import { doing } from "../parts/toast";
import { Link } from "../router";

export default function Flows({ id }: { id: string | undefined }) {
  return id ? <OneFlow id={id} /> : <AllFlows />;
}

function AllFlows() {
  const { data: flows, error, refetch, isPending } = useQuery(flowsQuery);
  return (
    <>
      <PageHead
        title="Flows"
        note={flows && (flows.length < 100 ? `${count(flows.length)} flows` : "the newest 100")}
      />
      <Trouble error={error} again={refetch} />
      {isPending && !error && <Loading />}
      {flows?.length === 0 && (
        <Empty title="No flow yet">A flow is a graph of jobs, submitted as a whole with POST /flows.</Empty>
      )}
      <div className="cards">
        {flows?.map((it) => (
          <Link key={it.id} className="panel flow" href={`/flows/${it.id}`}>
            <header>
              <h2>{it.name || it.id}</h2>
              <Badge state={it.state} />
            </header>
            <div className="progress-line">
              <progress max={1} value={it.progress} aria-label="Progress" />
              <b>{Math.round(it.progress * 100)} %</b>
            </div>
            <p className="dim">
              {Object.entries(it.counts)
                .filter(([, many]) => many > 0)
                .map(([state, many]) => `${many} ${state}`)
                .join(" · ")}
              {" · "}
              <Ago at={it.submitted_at} />
            </p>
          </Link>
        ))}
      </div>
    </>
  );
}

function OneFlow({ id }: { id: string }) {
  const { data: flow, error, refetch } = useQuery(flowQuery(id));
  if (error) return <Trouble error={error} again={refetch} />;
  if (!flow) return <Loading />;
  return (
    <>
      <PageHead
        title={
          <>
            {flow.name || "Flow"} <Badge state={flow.state} />
          </>
        }
        note={
          <>
            <Link href="/flows">
              <Icon name="back" /> Flows
            </Link>
            <code>{flow.id}</code> submitted <Ago at={flow.submitted_at} />
          </>
        }
      >
        <CancelFlow flow={flow} />
      </PageHead>
      <section className="panel graph" tabIndex={0} aria-label="The graph">
        {layers(flow.nodes).map((column) => (
          <ol key={column[0]?.name}>
            {column.map((it) => (
              <NodeCard key={it.name} node={it} />
            ))}
          </ol>
        ))}
      </section>
    </>
  );
}

function NodeCard({ node }: { node: FlowNode }) {
  const after = node.after ?? [];
  return (
    <li className="node" data-state={node.state}>
      <b>{node.job ? <Link href={jobPath(node.job)}>{node.name}</Link> : node.name}</b>
      <Badge state={node.state} />
      <code>{node.type}</code>
      {after.length > 0 && <small>after {after.join(", ")}</small>}
      {node.why && <p>{node.why}</p>}
    </li>
  );
}

function CancelFlow({ flow }: { flow: FlowDetail }) {
  const client = useQueryClient();
  if (!useMayOperate() || flow.state !== "active" || flow.cancelled) return null;
  const cancel = async () => {
    await doing(api(`/flows/${flow.id}/cancel`, "POST"), "The flow is cancelled");
    client.invalidateQueries({ queryKey: ["flow", flow.id] });
  };
  return (
    <Button kind="danger" icon="cancel" onClick={cancel}>
      Cancel
    </Button>
  );
}
