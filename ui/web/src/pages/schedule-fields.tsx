/** The three parts of a schedule's form: when, what, and what if. */
import type { SyntheticEvent } from "react";
import { type Draft, tickIn } from "../lib/schedule";
import type { JobType } from "../lib/schema";
import { Ago } from "../parts/basic";
import { FieldInput, Labelled } from "../parts/fields";
import type { Payload } from "./schedule-form";

const ZONES = ["UTC", ...Intl.supportedValuesOf("timeZone")];
/** This browser's time zone. */
export const HERE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const OVERLAPS = {
  skip: "leave the new one out",
  queue: "let it wait for its turn",
  cancel: "cancel the one that runs",
  allow: "run both",
};
const CATCH_UPS = { last: "one job for all of them", none: "none", all: "one job for each" };

export type Change = (changes: Partial<Draft>) => void;
type Parts = { draft: Draft; change: Change; wrong: Record<string, string> };

export function When({ draft, change, wrong, next }: Parts & { next: string[] }) {
  const cron = draft.rhythm === "cron";
  const tick = (at: string) => tickIn(at, cron ? draft.tz : HERE, !cron && Number(draft.every) < 60);
  return (
    <fieldset>
      <legend>When</legend>
      <div className="chips">
        <button
          type="button"
          aria-pressed={draft.rhythm === "cron"}
          onClick={() => change({ rhythm: "cron" })}
        >
          at times of day
        </button>
        <button
          type="button"
          aria-pressed={draft.rhythm === "every"}
          onClick={() => change({ rhythm: "every" })}
        >
          every so often
        </button>
      </div>
      {draft.rhythm === "cron" ? (
        <div className="pair">
          <Labelled name="Cron" about="minute hour day month weekday" wrong={wrong.cron}>
            <input className="mono" required {...bound(draft, change, "cron", wrong)} />
          </Labelled>
          <Labelled name="Time zone" wrong={wrong.tz}>
            <input required list="zones" {...bound(draft, change, "tz", wrong)} />
            <datalist id="zones">
              {ZONES.map((it) => (
                <option key={it} value={it} />
              ))}
            </datalist>
          </Labelled>
        </div>
      ) : (
        <Labelled name="Every, in s" wrong={wrong.every}>
          <input required type="number" min={1} step="any" {...bound(draft, change, "every", wrong)} />
        </Labelled>
      )}
      <p className="next-ticks" role="status">
        {next.length > 0 ? (
          <>
            Next{" "}
            {next.map((it) => (
              <b key={it}>{tick(it)}</b>
            ))}{" "}
            <span className="dim">
              <Ago at={next[0] ?? ""} />
            </span>
          </>
        ) : (
          <span className="dim">The next times are shown here once it is right.</span>
        )}
      </p>
    </fieldset>
  );
}

export function What(props: Parts & { types: JobType[]; payload: Payload }) {
  const { draft, change, types, payload, wrong } = props;
  const type = types.find((it) => it.type === draft.type);
  return (
    <fieldset>
      <legend>What</legend>
      <div className="pair">
        <Labelled name="Job" about={type?.about} wrong={wrong["job.type"]}>
          <select value={draft.type} onChange={(event) => change({ type: event.target.value, kept: {} })}>
            {!type && <option>{draft.type}</option>}
            {types.map((it) => (
              <option key={it.type}>{it.type}</option>
            ))}
          </select>
        </Labelled>
        <Labelled name="Tags" wrong={wrong["job.tags"]}>
          <input placeholder="one, two" {...bound(draft, change, "tags", wrong)} />
        </Labelled>
      </div>
      {payload.sealed && <p className="dim">Its payload is sealed: to change the schedule, give it anew.</p>}
      {payload.typed && type ? (
        type.fields.map((it) => (
          <FieldInput
            key={`${type.type} ${it.name}`}
            field={it}
            value={payload.typed?.[it.name] ?? ""}
            wrong={wrong[`job.payload.${it.name}`]}
            onValue={(value) => payload.setTyped({ ...payload.typed, [it.name]: value })}
          />
        ))
      ) : (
        <Labelled name="Payload" wrong={wrong["job.payload"]}>
          <textarea
            rows={6}
            spellCheck={false}
            value={payload.text}
            onChange={(event) => payload.setText(event.target.value)}
          />
        </Labelled>
      )}
    </fieldset>
  );
}

export function WhatIf({ draft, change, wrong }: Parts) {
  return (
    <fieldset>
      <legend>What if</legend>
      <div className="pair">
        <Labelled name="The one before still runs">
          <select {...bound(draft, change, "overlap", wrong)}>
            {Object.entries(OVERLAPS).map(([value, told]) => (
              <option key={value} value={value}>
                {told}
              </option>
            ))}
          </select>
        </Labelled>
        <Labelled name="Times were missed">
          <select {...bound(draft, change, "catch_up", wrong)}>
            {Object.entries(CATCH_UPS).map(([value, told]) => (
              <option key={value} value={value}>
                {told}
              </option>
            ))}
          </select>
        </Labelled>
      </div>
      {draft.catch_up === "all" && (
        <div className="pair">
          <Labelled name="Of the last s" wrong={wrong.window}>
            <input type="number" min={1} step="any" {...bound(draft, change, "window", wrong)} />
          </Labelled>
          <Labelled name="At most" wrong={wrong.limit}>
            <input type="number" min={1} max={500} {...bound(draft, change, "limit", wrong)} />
          </Labelled>
        </div>
      )}
      <details open={Boolean(draft.start || draft.end || draft.jitter)}>
        <summary>From when, until when, how much at random</summary>
        <div className="pair">
          <Labelled name="Not before" wrong={wrong.start}>
            <input type="datetime-local" step={1} {...bound(draft, change, "start", wrong)} />
          </Labelled>
          <Labelled name="Not after" wrong={wrong.end}>
            <input type="datetime-local" step={1} {...bound(draft, change, "end", wrong)} />
          </Labelled>
          <Labelled name="Up to so many s later" wrong={wrong.jitter}>
            <input type="number" min={0} step="any" {...bound(draft, change, "jitter", wrong)} />
          </Labelled>
        </div>
      </details>
    </fieldset>
  );
}

function bound(draft: Draft, change: Change, name: keyof Draft & string, wrong: Record<string, string>) {
  return {
    value: draft[name] as string,
    "aria-invalid": Boolean(wrong[name]),
    onChange: (event: SyntheticEvent<HTMLInputElement | HTMLSelectElement>) =>
      change({ [name]: event.currentTarget.value } as Partial<Draft>),
  };
}
