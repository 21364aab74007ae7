/** A job's life as a bar: what it waited, ran, and backed off; each attempt named. */
import type { JobEvent } from "../api/types";
import { duration, moment } from "../lib/format";
import { type Drawn, drawn, spans } from "../lib/timeline";
import { useNow } from "../parts/now";

const WORDS = { waiting: "waiting", delayed: "delayed", active: "running", backoff: "backing off" };

/** `until`: draw what is not over up to this moment (Unix ms); null: up to now. */
export function Timeline({ events, until }: { events: JobEvent[]; until: number | null }) {
  const now = useNow();
  const all = drawn(spans(events, until ?? now));
  const first = Date.parse(events[0]?.at ?? "");
  const total = (all.at(-1)?.to ?? first) - first;
  const sum = (phases: string[]) =>
    all.filter((it) => phases.includes(it.phase)).reduce((ms, it) => ms + it.to - it.from, 0);
  return (
    <section className="panel">
      <header>
        <h2>Life</h2>
        <span className="dim">
          {duration(total)} in all: waited {duration(sum(["waiting", "delayed"]))}, ran{" "}
          {duration(sum(["active"]))}
          {sum(["backoff"]) > 0 && `, backed off ${duration(sum(["backoff"]))}`}
        </span>
      </header>
      <ol className="timeline">
        {all.map((it) => (
          <Bar key={`${it.from}${it.phase}`} span={it} />
        ))}
      </ol>
      <ul className="legend" aria-hidden="true">
        {(["waiting", "delayed", "active", "backoff"] as const)
          .filter((phase) => all.some((it) => it.phase === phase))
          .map((phase) => (
            <li key={phase} data-phase={phase}>
              {WORDS[phase]}
            </li>
          ))}
        {all.some((it) => it.folded) && <li data-phase="folded">folded, not to scale</li>}
      </ul>
    </section>
  );
}

function Bar({ span }: { span: Drawn }) {
  const { phase, from, to, attempt, end, open, folded, weight } = span;
  const told = `${WORDS[phase]}${phase === "active" ? `, attempt ${attempt}` : ""}: ${duration(to - from)}`;
  const bad = phase === "active" && ["attempt_failed", "failed", "lease_expired"].includes(end);
  return (
    <li
      data-phase={phase}
      data-open={open}
      data-folded={folded}
      data-bad={bad}
      style={{ flexGrow: weight }}
      title={`${told}, from ${moment(from)}${end ? `, until ${end.replace("_", " ")}` : ""}`}
    >
      <span className="hidden">{told}</span>
      <span aria-hidden="true">
        {phase === "active" ? `#${attempt} ` : ""}
        {duration(to - from)}
      </span>
    </li>
  );
}
