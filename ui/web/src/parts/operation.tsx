/** An operation on many jobs, which is a job itself: how far it is, and what stops it or lets it go on. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useEffect, useRef } from "react";
import { api, jobPath } from "../api/client";
import { jobQuery } from "../api/queries";
import type { Job } from "../api/types";
import { Link } from "../router";
import { Button, Trouble } from "./basic";
import { doing } from "./toast";

const LOOK_MS = 500;
const UNDER_WAY: Record<string, string> = { waiting: "waits for a worker", delayed: "will be tried again" };

/** `told`: what it says of itself; `onAgain`: what lets it go on after it was stopped or has failed. */
export function Operation<Done>(props: {
  id: string;
  told: (done: Done | null, job: Job | undefined) => ReactNode;
  onAgain?: () => Promise<unknown>;
  onClose: () => void;
}) {
  const { id, told, onAgain, onClose } = props;
  const client = useQueryClient();
  const {
    data: job,
    error,
    refetch,
  } = useQuery({ ...jobQuery(id), refetchInterval: ({ state }) => !isOver(state.data) && LOOK_MS });
  const over = isOver(job);
  const short = over && job?.state !== "completed";
  const done = (job?.result ?? job?.progress?.data ?? null) as Done | null;
  const box = useRef<HTMLDivElement>(null);
  // What had the focus is gone: who reads by it goes on here.
  useEffect(() => box.current?.focus(), []);
  const leave = () => {
    client.invalidateQueries();
    onClose();
  };
  return (
    <div className="ask" ref={box} tabIndex={-1}>
      <Trouble error={error ?? (over && job?.error?.message)} />
      <div className="progress-line">
        <progress max={1} {...(job && { value: fraction(job) })} aria-label="Progress" />
        <b role="status">{job && (over ? job.state : (UNDER_WAY[job.state] ?? "running"))}</b>
      </div>
      {told(done, job)}
      <p className="dim">
        It is a job itself:{" "}
        <Link href={jobPath(id)}>
          <code>{id}</code>
        </Link>
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
        {short && onAgain && (
          <Button icon="play" onClick={() => doing(onAgain(), "It goes on").then(() => refetch())}>
            Go on
          </Button>
        )}
        <Button kind="primary" onClick={leave}>
          {over ? "Done" : "Leave it running"}
        </Button>
      </div>
    </div>
  );
}

const isOver = (job?: Job) => job !== undefined && ["completed", "failed", "cancelled"].includes(job.state);

function fraction({ state, progress }: Job): number {
  return state === "completed" ? 1 : (progress?.fraction ?? 0);
}
