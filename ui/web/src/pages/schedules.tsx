/** What comes by itself, and when next. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { api, jobPath } from "../api/client";
import { schedulesQuery } from "../api/queries";
import type { Schedule } from "../api/types";
import { count, duration } from "../lib/format";
import { Ago, Button, Empty, Loading, PageHead, Trouble } from "../parts/basic";
import { useMayOperate } from "../parts/here";
import { doing } from "../parts/toast";
import { Link } from "../router";

export default function Schedules() {
  const { data: schedules, error, refetch, isPending } = useQuery(schedulesQuery);
  return (
    <>
      <PageHead title="Schedules" note={schedules && `${count(schedules.length)} set`} />
      <Trouble error={error} again={refetch} />
      {isPending && !error && <Loading />}
      {schedules?.length === 0 && (
        <Empty title="No schedule is set">
          <code>PUT /schedules/nightly</code> on the API sets one.
        </Empty>
      )}
      <div className="cards">
        {schedules?.map((it) => (
          <ScheduleCard key={it.name} schedule={it} />
        ))}
      </div>
    </>
  );
}

function ScheduleCard({ schedule: it }: { schedule: Schedule }) {
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
          <dd>{it.next[0] ? <Ago at={it.next[0]} /> : "–"}</dd>
        </div>
        {it.last && (
          <div>
            <dt>Last</dt>
            <dd title={it.last.reason}>
              {it.last.event.replace("_", " ")} <Ago at={it.last.at} />
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
      <ScheduleActs schedule={it} />
    </article>
  );
}

function ScheduleActs({ schedule: { name, paused } }: { schedule: Schedule }) {
  const client = useQueryClient();
  if (!useMayOperate()) return null;
  const act = async (what: string, done: string) => {
    await doing(api(`/schedules/${encodeURIComponent(name)}/${what}`, "POST"), done);
    client.invalidateQueries({ queryKey: schedulesQuery.queryKey });
  };
  return (
    <div className="actions">
      {paused ? (
        <Button icon="play" onClick={() => act("resume", `${name} goes on`)}>
          Resume
        </Button>
      ) : (
        <Button icon="pause" onClick={() => act("pause", `${name} is paused`)}>
          Pause
        </Button>
      )}
      <Button icon="submit" onClick={() => act("trigger", `${name} runs its job now`)}>
        Run now
      </Button>
    </div>
  );
}
