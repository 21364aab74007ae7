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
  const client = useQueryClient();
  const [removing, setRemoving] = useState(false);
  if (!useMayOperate()) return null;
  const path = `/schedules/${encodeURIComponent(name)}`;
  const act = async (work: Promise<unknown>, done: string) => {
    await doing(work, done);
    client.invalidateQueries({ queryKey: schedulesQuery.queryKey });
  };
  const turn = () =>
    act(
      api(`${path}/${paused ? "resume" : "pause"}`, "POST"),
      paused ? `${name} goes on` : `${name} is paused`,
    );
  const remove = () => act(api(path, "DELETE"), `${name} is removed`).then(() => setRemoving(false));
  return (
    <div className="actions">
      <Button icon="submit" onClick={() => act(api(`${path}/trigger`, "POST"), `${name} runs its job now`)}>
        Run now
      </Button>
      <Button icon={paused ? "play" : "pause"} onClick={turn}>
        {paused ? "Resume" : "Pause"}
      </Button>
      <Button icon="edit" onClick={onChange}>
        Change
      </Button>
      <Button
        kind="quiet"
        icon="cancel"
        className="last"
        onClick={() => setRemoving(true)}
        aria-label={`Remove ${name}`}
        title="Remove"
      />
      <Dialog title={`Remove ${name}?`} open={removing} onClose={() => setRemoving(false)}>
        <p>It submits nothing any more. Its jobs stay, and so does what was decided.</p>
        <div className="actions">
          <Button onClick={() => setRemoving(false)}>Leave it</Button>
          <Button kind="danger" icon="cancel" onClick={remove}>
            Remove
          </Button>
        </div>
      </Dialog>
    </div>
  );
}
