/** What comes by itself, and when next. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, jobPath } from "../api/client";
import { schedulesQuery } from "../api/queries";
import type { Schedule } from "../api/types";
import { count, duration } from "../lib/format";
import { tickIn } from "../lib/schedule";
import { Ago, Button, Dialog, Empty, Loading, PageHead, Trouble } from "../parts/basic";
import { useMayOperate } from "../parts/here";
import { doing } from "../parts/toast";
import { Link } from "../router";
import { ScheduleForm } from "./schedule-form";

export default function Schedules() {
  const { data: schedules, error, refetch, isPending } = useQuery(schedulesQuery);
  const may = useMayOperate();
  const [setting, set] = useState<Schedule | "new" | null>(null);
  const create = (
    <Button kind="primary" icon="submit" onClick={() => set("new")}>
      New schedule
    </Button>
  );
  return (
    <>
      <PageHead title="Schedules" note={schedules && `${count(schedules.length)} set`}>
        {may && schedules && schedules.length > 0 && create}
      </PageHead>
      <Trouble error={error} again={refetch} />
      {isPending && !error && <Loading />}
      {schedules?.length === 0 && (
        <Empty title="Nothing comes by itself yet" act={may && create}>
          A schedule submits a job at times of day, or every so often.
        </Empty>
      )}
      <div className="cards">
        {schedules?.map((it) => (
          <ScheduleCard key={it.name} schedule={it} onChange={() => set(it)} />
        ))}
      </div>
      <Dialog
        title={setting === "new" ? "New schedule" : `Change ${setting?.name}`}
        open={setting !== null}
        onClose={() => set(null)}
        wide
      >
        <ScheduleForm schedule={setting === "new" ? null : setting} onClose={() => set(null)} />
      </Dialog>
    </>
  );
}

function ScheduleCard({ schedule: it, onChange }: { schedule: Schedule; onChange: () => void }) {
  const tick = (at: string) => tickIn(at, it.cron ? (it.tz ?? "UTC") : undefined, (it.every ?? 60) < 60);
  const rhythm = it.cron ? `${it.cron} (${it.tz ?? "UTC"})` : `every ${duration((it.every ?? 0) * 1000)}`;
  return (
    <article className="panel schedule">
      <header>
        <div>
          <h2>{it.name}</h2>
          <p className="dim">
            <code>{it.job.type}</code> on {it.queue}
          </p>
        </div>
        {it.paused && (
          <span className="badge" data-state="delayed">
            paused
          </span>
        )}
        <Remove name={it.name} />
      </header>
      <dl className="facts">
        <div>
          <dt>Rhythm</dt>
          <dd>
            <code>{rhythm}</code>
          </dd>
        </div>
        <div>
          <dt>Next</dt>
          <dd title={it.next.map(tick).join(", ")}>
            {it.next[0] ? (
              <>
                <Ago at={it.next[0]} /> · {tick(it.next[0])}
              </>
            ) : (
              "–"
            )}
          </dd>
        </div>
        {it.last && (
          <div>
            <dt>Last</dt>
            <dd title={it.last.reason}>
              {it.last.event.replace("schedule_", "")} <Ago at={it.last.at} />
            </dd>
          </div>
        )}
        <div>
          <dt>While one still runs</dt>
          <dd>{it.overlap}</dd>
        </div>
        {Boolean(it.waiting) && (
          <div>
            <dt>Due and not submitted</dt>
            <dd data-bad>{it.waiting}</dd>
          </div>
        )}
        {it.last_job && (
          <div>
            <dt>Last job</dt>
            <dd>
              <Link href={jobPath(it.last_job)}>{it.last_job}</Link>
            </dd>
          </div>
        )}
      </dl>
      <ScheduleActs schedule={it} onChange={onChange} />
    </article>
  );
}

function ScheduleActs({ schedule, onChange }: { schedule: Schedule; onChange: () => void }) {
  const { name, paused } = schedule;
  const tell = useTelling();
  if (!useMayOperate()) return null;
  const turn = () => tell(name, "POST", paused ? "/resume" : "/pause", paused ? "goes on" : "is paused");
  return (
    <div className="actions">
      <Button icon="submit" onClick={() => tell(name, "POST", "/trigger", "runs its job now")}>
        Run now
      </Button>
      <Button icon={paused ? "play" : "pause"} onClick={turn}>
        {paused ? "Resume" : "Pause"}
      </Button>
      <Button icon="edit" onClick={onChange}>
        Change
      </Button>
    </div>
  );
}

function Remove({ name }: { name: string }) {
  const [asking, ask] = useState(false);
  const tell = useTelling();
  if (!useMayOperate()) return null;
  return (
    <>
      <Button
        kind="quiet"
        icon="cancel"
        onClick={() => ask(true)}
        aria-label={`Remove ${name}`}
        title="Remove"
      />
      <Dialog title={`Remove ${name}?`} open={asking} onClose={() => ask(false)}>
        <p>It submits nothing any more. Its jobs stay, and so does what was decided.</p>
        <div className="actions">
          <Button onClick={() => ask(false)}>Leave it</Button>
          <Button kind="danger" icon="cancel" onClick={() => tell(name, "DELETE", "", "is removed")}>
            Remove
          </Button>
        </div>
      </Dialog>
    </>
  );
}

/** Tells the server to do something to a schedule, and people that it was done. */
function useTelling() {
  const client = useQueryClient();
  return async (name: string, method: string, what: string, done: string) => {
    await doing(api(`/schedules/${encodeURIComponent(name)}${what}`, method), `${name} ${done}`);
    client.invalidateQueries({ queryKey: schedulesQuery.queryKey });
  };
}
