/** A job's events as the log has them; and a slider to look at the job as it was after any of them. */
import { useEffect, useState } from "react";
import type { JobEvent, Json } from "../api/types";
import { duration, moment } from "../lib/format";
import { Button } from "../parts/basic";

const STEP_MS = 600;
const TONES: Record<string, string> = {
  started: "active",
  progressed: "active",
  logged: "active",
  completed: "completed",
  failed: "failed",
  attempt_failed: "failed",
  lease_expired: "failed",
  cancelled: "cancelled",
};

export function History(props: {
  events: JobEvent[];
  upto: number | null;
  onUpto: (upto: number | null) => void;
}) {
  const { events, upto, onUpto } = props;
  const shown = events.slice(0, upto ?? events.length);
  return (
    <section className="panel">
      <header>
        <h2>History</h2>
        <span className="dim">{events.length} events</span>
      </header>
      {events.length > 1 && <Travel events={events} upto={upto} onUpto={onUpto} />}
      <ol className="history">
        {shown.map((it, n) => (
          <Entry key={it.position} event={it} before={shown[n - 1]} />
        ))}
      </ol>
    </section>
  );
}

function Travel(props: { events: JobEvent[]; upto: number | null; onUpto: (upto: number | null) => void }) {
  const { events, upto, onUpto } = props;
  const [playing, setPlaying] = useState(false);
  const at = upto ?? events.length;
  useEffect(() => {
    if (!playing) return;
    const step = setTimeout(() => {
      const next = at + 1;
      onUpto(next >= events.length ? null : next);
      if (next >= events.length) setPlaying(false);
    }, STEP_MS);
    return () => clearTimeout(step);
  }, [playing, at, events.length, onUpto]);
  const play = () => {
    if (!playing && upto === null) onUpto(1);
    setPlaying(!playing);
  };
  return (
    <div className="travel">
      <Button
        kind="quiet"
        icon={playing ? "pause" : "play"}
        aria-label={playing ? "Pause" : "Play its life"}
        onClick={play}
      />
      <input
        type="range"
        min={1}
        max={events.length}
        value={at}
        aria-label="Look at it as it was after this event"
        aria-valuetext={`event ${at} of ${events.length}`}
        onChange={(event) => {
          const next = Number(event.target.value);
          setPlaying(false);
          onUpto(next === events.length ? null : next);
        }}
      />
    </div>
  );
}

function Entry({ event: it, before }: { event: JobEvent; before: JobEvent | undefined }) {
  const after = before ? Date.parse(it.at) - Date.parse(before.at) : 0;
  const rest = Object.fromEntries(
    Object.entries(it.data ?? {}).filter(([name]) => !["payload", "result", "traceback"].includes(name)),
  );
  return (
    <li data-tone={TONES[it.event] ?? "waiting"}>
      <div>
        <b>{it.event.replace("_", " ")}</b>
        <time dateTime={it.at}>{moment(it.at)}</time>
        {before && <small>+{duration(after)}</small>}
      </div>
      {words(it.event, rest) && <p>{words(it.event, rest)}</p>}
      {typeof it.data?.traceback === "string" && it.data.traceback && (
        <details>
          <summary>Traceback</summary>
          <pre tabIndex={0}>{it.data.traceback}</pre>
        </details>
      )}
    </li>
  );
}

/** What an event says, in a line. */
function words(event: string, data: Record<string, Json>): string {
  const text = (name: string) => (data[name] === undefined || data[name] === null ? "" : String(data[name]));
  if (event === "started") return `attempt ${text("attempt")} on ${text("worker")}`;
  if (event === "progressed") return `${Math.round(Number(data.fraction) * 100)} % ${text("message")}`;
  if (event === "logged") return text("line");
  if (event === "attempt_failed")
    return `${text("error")}: ${text("message")}; again in ${duration(Number(data.delay) * 1000)}`;
  if (event === "failed") return `${text("reason")}: ${text("error")}: ${text("message")}`;
  if (event === "completed") return data.ms === undefined ? "" : `ran ${duration(Number(data.ms))}`;
  return Object.entries(data)
    .filter(([name, value]) => name !== "type" && name !== "trace" && typeof value !== "object")
    .map(([name, value]) => `${name} ${value}`)
    .join(" · ");
}
