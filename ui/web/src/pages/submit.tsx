/** Submit a job by a form that its contract makes. */
import { useQuery } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api, jobPath } from "../api/client";
import { jobTypesQuery } from "../api/queries";
import { type JobType, payloadOf } from "../lib/schema";
import { Button, Empty, Loading, PageHead, Trouble } from "../parts/basic";
import { FieldInput, wrongOf } from "../parts/fields";
import { useMayOperate } from "../parts/here";
import { say } from "../parts/toast";
import { go, useSearch } from "../router";

export default function Submit() {
  const may = useMayOperate();
  const [params, change] = useSearch();
  const { data, error, refetch } = useQuery(jobTypesQuery);
  if (!may) return <Empty title="With this password one may look, and submit nothing" />;
  if (error) return <Trouble error={error} again={refetch} />;
  if (!data) return <Loading />;
  const chosen = data.find((it) => it.type === params.get("type")) ?? data[0];
  if (!chosen) return <Empty title="No job type is known to the API" />;
  return (
    <>
      <PageHead
        title="Submit a job"
        note="By its contract: what is wrong is said before anything is written."
      />
      <div className="submit">
        <nav className="panel types" aria-label="Job types">
          {data.map((it) => (
            <button
              key={it.type}
              type="button"
              aria-pressed={it === chosen}
              onClick={() => change({ type: it.type })}
            >
              {it.type}
            </button>
          ))}
        </nav>
        <Form key={chosen.type} type={chosen} />
      </div>
    </>
  );
}

function Form({ type }: { type: JobType }) {
  const [typed, setTyped] = useState<Record<string, string>>({});
  const [options, setOptions] = useState({ priority: "", delay: "", tags: "" });
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const wrong = wrongOf(error, "payload.");
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    try {
      const tags = options.tags.split(",").map((it) => it.trim());
      const made = await api<{ id: string }>(`/jobs/${type.queue}`, "POST", {
        type: type.type,
        payload: payloadOf(type.fields, typed),
        ...(options.priority && { priority: options.priority }),
        ...(options.delay && { delay: Number(options.delay) }),
        ...(options.tags && { tags: tags.filter(Boolean) }),
      });
      say(`${type.type} was submitted`);
      go(jobPath(made.id));
    } catch (problem) {
      setError(problem);
    } finally {
      setBusy(false);
    }
  };
  const option = (name: keyof typeof options) => ({
    value: options[name],
    onChange: (event: { target: { value: string } }) =>
      setOptions({ ...options, [name]: event.target.value }),
  });
  return (
    <form className="panel form" onSubmit={submit}>
      <header>
        <h2>{type.type}</h2>
        <span className="dim">queue {type.queue}</span>
      </header>
      {type.about && <p className="dim">{type.about}</p>}
      {type.fields.map((it) => (
        <FieldInput
          key={it.name}
          field={it}
          value={typed[it.name] ?? ""}
          wrong={wrong[it.name]}
          onValue={(value) => setTyped({ ...typed, [it.name]: value })}
        />
      ))}
      <fieldset className="options">
        <legend>Options</legend>
        <label>
          Priority
          <select {...option("priority")}>
            <option value="">as the type says</option>
            <option>high</option>
            <option>normal</option>
            <option>low</option>
          </select>
        </label>
        <label>
          Delay in s
          <input type="number" min={0} step="any" {...option("delay")} />
        </label>
        <label>
          Tags
          <input placeholder="one, two" {...option("tags")} />
        </label>
      </fieldset>
      <Trouble error={error} />
      <div className="actions">
        <Button kind="primary" type="submit" icon="submit" disabled={busy}>
          Submit
        </Button>
      </div>
    </form>
  );
}
