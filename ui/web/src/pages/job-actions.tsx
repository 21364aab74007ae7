/** What can be done to a job in its state. */
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, jobPath } from "../api/client";
import type { Job } from "../api/types";
import { Button, Dialog, Trouble } from "../parts/basic";
import { useMayOperate } from "../parts/here";
import { doing, say } from "../parts/toast";
import { go } from "../router";

export function Actions({ job }: { job: Job }) {
  const client = useQueryClient();
  const may = useMayOperate();
  const [editing, setEditing] = useState(false);
  if (!may) return null;
  const over = job.state === "completed" || job.state === "failed" || job.state === "cancelled";
  const act = async (name: string, done: string) => {
    await doing(api(`${jobPath(job.id)}/${name}`, "POST"), done);
    client.invalidateQueries({ queryKey: ["job", job.id] });
    client.invalidateQueries({ queryKey: ["events", job.id] });
  };
  return (
    <>
      {job.state === "delayed" && (
        <Button icon="play" onClick={() => act("promote", "It runs as soon as a worker is free")}>
          Run now
        </Button>
      )}
      {!over && (
        <Button icon="cancel" kind="danger" onClick={() => act("cancel", "Cancelled")}>
          Cancel
        </Button>
      )}
      {over && (
        <Button
          icon="retry"
          kind={job.state === "failed" ? "primary" : "plain"}
          onClick={() => act("retry", "It runs again")}
        >
          Run again
        </Button>
      )}
      {over && (
        <Button icon="edit" onClick={() => setEditing(true)}>
          Edit and run again
        </Button>
      )}
      <Dialog title="Edit and run again" open={editing} onClose={() => setEditing(false)} wide>
        <Edit job={job} onClose={() => setEditing(false)} />
      </Dialog>
    </>
  );
}

/** A new job like this one, with another payload. */
function Edit({ job, onClose }: { job: Job; onClose: () => void }) {
  const [text, setText] = useState(() => JSON.stringify(job.payload, null, 2));
  const [error, setError] = useState<unknown>(null);
  const run = async () => {
    try {
      const payload = JSON.parse(text);
      const made = await api<{ id: string }>(`${jobPath(job.id)}/retry`, "POST", { payload });
      say("A new job was submitted");
      onClose();
      go(jobPath(made.id));
    } catch (problem) {
      setError(problem);
    }
  };
  return (
    <div className="edit">
      <p className="dim">A new {job.type} like this one is submitted; this one stays as it is.</p>
      <textarea
        aria-label="Payload"
        rows={16}
        spellCheck={false}
        value={text}
        onChange={(event) => setText(event.target.value)}
      />
      <Trouble error={error} />
      <div className="actions">
        <Button onClick={onClose}>Leave it</Button>
        <Button kind="primary" icon="play" onClick={run}>
          Run
        </Button>
      </div>
    </div>
  );
}
