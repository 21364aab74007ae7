/** Set a schedule: when, what, and what if. The server checks it while it is typed, and tells the times. */
import { keepPreviousData, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useEffect, useState } from "react";
import { api } from "../api/client";
import { jobTypesQuery, schedulesQuery } from "../api/queries";
import type { Json, Schedule } from "../api/types";
import { blank, type Draft, draftOf, requestOf } from "../lib/schedule";
import { type JobType, payloadOf, typedOf } from "../lib/schema";
import { Button, Loading, Trouble } from "../parts/basic";
import { Labelled, wrongOf } from "../parts/fields";
import { say } from "../parts/toast";
import { type Change, HERE, What, WhatIf, When } from "./schedule-fields";

const PAUSE_MS = 300;
/** What is wrong with these is said at once; what is wrong with the rest, when it is set. */
const RHYTHM = ["cron", "every", "tz", "start", "end"];

type Preview = { next: string[]; errors: { path: string; message: string }[] };

export function ScheduleForm({ schedule, onClose }: { schedule: Schedule | null; onClose: () => void }) {
  const { data: types, error, refetch } = useQuery(jobTypesQuery);
  if (error) return <Trouble error={error} again={refetch} />;
  if (!types) return <Loading />;
  const known = types.length > 0 || schedule !== null;
  if (!known) return <p className="dim">No job type is known to the API.</p>;
  return <Form types={types} schedule={schedule} onClose={onClose} />;
}

function Form(props: { types: JobType[]; schedule: Schedule | null; onClose: () => void }) {
  const { types, schedule, onClose } = props;
  const client = useQueryClient();
  const [draft, setDraft] = useState(() =>
    schedule ? draftOf(schedule) : blank(types[0]?.type ?? "", HERE),
  );
  const payload = usePayload(types, draft.type, schedule);
  const [error, setError] = useState<unknown>(null);
  const change: Change = (changes) => setDraft({ ...draft, ...changes });
  const body = () => requestOf(draft, payload.read());
  const preview = usePreview(draft, payload.read);
  const wrong = { ...preview.wrong, ...wrongOf(error) };
  const save = async (event: FormEvent) => {
    event.preventDefault();
    try {
      await api(`/schedules/${encodeURIComponent(draft.name)}`, "PUT", body());
      say(`${draft.name} is set`);
      client.invalidateQueries({ queryKey: schedulesQuery.queryKey });
      onClose();
    } catch (problem) {
      setError(problem);
    }
  };
  return (
    <form className="form schedule-form" onSubmit={save}>
      {!schedule && (
        <Labelled name="Name" about="Small letters, digits, dots and dashes." wrong={wrong.name}>
          <input
            required
            pattern="[a-z0-9][a-z0-9._\-]*"
            maxLength={100}
            placeholder="nightly-report"
            value={draft.name}
            onChange={(event) => change({ name: event.target.value })}
          />
        </Labelled>
      )}
      <When draft={draft} change={change} wrong={wrong} next={preview.next} />
      <What draft={draft} change={change} types={types} payload={payload} wrong={wrong} />
      <WhatIf draft={draft} change={change} wrong={wrong} />
      <Trouble error={error} />
      <div className="actions">
        <Button onClick={onClose}>Leave it</Button>
        <Button kind="primary" type="submit" icon="check">
          {schedule ? "Change" : "Set"}
        </Button>
      </div>
    </form>
  );
}

export type Payload = ReturnType<typeof usePayload>;

/** The payload, by the fields of its contract; as JSON where those do not hold it. */
function usePayload(types: JobType[], name: string, schedule: Schedule | null) {
  const fields = types.find((it) => it.type === name)?.fields;
  const given = schedule?.job.type === name ? schedule.job.payload : {};
  const sealed = JSON.stringify(given) === '{"sealed":true}';
  const known: Json = sealed ? {} : given;
  const [told, tell] = useState<Record<string, { typed?: Record<string, string>; text?: string }>>({});
  const mine = told[name] ?? {};
  const typed = mine.typed ?? (fields ? typedOf(fields, known) : null);
  const text = mine.text ?? JSON.stringify(known, null, 2);
  return {
    sealed,
    typed,
    text: typed ? JSON.stringify(typed) : text,
    setTyped: (typed: Record<string, string>) => tell({ ...told, [name]: { typed } }),
    setText: (text: string) => tell({ ...told, [name]: { text } }),
    read: (): Json => (typed && fields ? payloadOf(fields, typed) : JSON.parse(text)),
  };
}

/** What the server says of it, once the typing pauses. */
function usePreview(draft: Draft, payload: () => Json) {
  const asked = JSON.stringify(requestOf(draft, attempt(payload)));
  const settled = useSettled(asked);
  const name = draft.name || "preview";
  const { data } = useQuery({
    queryKey: ["schedule-preview", name, settled],
    queryFn: () =>
      api<Preview>(`/schedules/${encodeURIComponent(name)}/preview`, "POST", JSON.parse(settled)),
    placeholderData: keepPreviousData,
    staleTime: 10_000,
    retry: false,
  });
  const errors = data?.errors.filter((it) => RHYTHM.includes(it.path)) ?? [];
  return {
    next: data?.next ?? [],
    wrong: Object.fromEntries(errors.map((it) => [it.path, it.message])),
  };
}

/** The value, once it has been the same for PAUSE_MS. */
function useSettled(value: string): string {
  const [settled, settle] = useState(value);
  useEffect(() => {
    const pause = setTimeout(() => settle(value), PAUSE_MS);
    return () => clearTimeout(pause);
  }, [value]);
  return settled;
}

/** What cannot be read yet is nothing. */
function attempt(read: () => Json): Json {
  try {
    return read();
  } catch {
    return null;
  }
}
