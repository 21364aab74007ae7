/** What a redrive can be told: a change to each payload, how fast, and a name. What is wrong is said at its
 * field, while it is typed where that can be known. */
import { useQuery } from "@tanstack/react-query";
import { Problem } from "../api/client";
import { jobQuery, jobTypesQuery, spanQuery } from "../api/queries";
import type { Json } from "../api/types";
import { type Draft, offered, readPatch, readRate, unknownIn, withField } from "../lib/redrive";
import { Labelled, wrongOf } from "./fields";

const CONFLICT = 409;
const FIELDS = ["patch", "rate", "id", "archived"];

/** Whether a problem is said at one of these fields. */
export const isAtField = (problem: unknown) =>
  problem instanceof Problem &&
  (problem.status === CONFLICT || problem.fields.some((it) => FIELDS.includes(it.path)));

/** `sample`: the id of a job that is meant; `type`: the one of all that are, if it is one */
export function Fields(props: {
  draft: Draft;
  change: (changes: Partial<Draft>) => void;
  problem: unknown;
  sample: string | undefined;
  type: string | undefined;
}) {
  const { draft, change, problem, sample, type } = props;
  const { data: span } = useQuery(spanQuery);
  const wrong = wrongOf(problem);
  const taken = problem instanceof Problem && problem.status === CONFLICT ? problem.message : wrong.id;
  const rate = readRate(draft.rate) === null ? "A number from 0 to 100,000." : wrong.rate;
  return (
    <>
      <Patch
        text={draft.patch}
        onText={(patch) => change({ patch })}
        wrong={wrong.patch}
        sample={sample}
        type={type}
      />
      <div className="pair">
        <Labelled name="Jobs per second" about="Empty: as fast as it goes." wrong={rate}>
          <input
            inputMode="decimal"
            autoComplete="off"
            placeholder="no limit"
            value={draft.rate}
            aria-invalid={Boolean(rate)}
            onChange={(event) => change({ rate: event.target.value })}
          />
        </Labelled>
        <Labelled
          name="Name"
          about="Started again under the same name it goes on, and doubles nothing."
          wrong={taken}
        >
          <input
            maxLength={100}
            autoComplete="off"
            spellCheck={false}
            value={draft.id}
            aria-invalid={Boolean(taken)}
            onChange={(event) => change({ id: event.target.value })}
          />
        </Labelled>
      </div>
      {span?.archived && (
        <label className="archived" data-wrong={Boolean(wrong.archived)}>
          <input
            type="checkbox"
            checked={draft.archived}
            onChange={(event) => change({ archived: event.target.checked })}
          />
          <span>
            Also jobs that retention has removed, from the archive
            {wrong.archived && <small role="alert"> {wrong.archived}</small>}
          </span>
        </label>
      )}
    </>
  );
}

function Patch(props: {
  text: string;
  onText: (text: string) => void;
  wrong: string | undefined;
  sample: string | undefined;
  type: string | undefined;
}) {
  const { text, onText, sample, type } = props;
  const { data: types } = useQuery(jobTypesQuery);
  const { data: job } = useQuery({ ...jobQuery(sample ?? ""), enabled: sample !== undefined });
  const fieldsOf = (name: string | undefined) => types?.find((it) => it.type === name)?.fields ?? [];
  const choices = offered(job?.payload ?? null, fieldsOf(job?.type ?? type));
  const read = readPatch(text);
  const wrong = "wrong" in read ? read.wrong : props.wrong;
  const unknown = "patch" in read ? unknownIn(read.patch, fieldsOf(type)) : [];
  return (
    <div className="patch">
      <Labelled
        name={
          <>
            Change to each payload <small>JSON merge patch; null takes a field away</small>
          </>
        }
        wrong={wrong}
      >
        <textarea
          rows={Math.min(12, Math.max(3, text.split("\n").length))}
          spellCheck={false}
          placeholder={exampleOf(choices)}
          value={text}
          aria-invalid={Boolean(wrong)}
          onChange={(event) => onText(event.target.value)}
        />
      </Labelled>
      {unknown.length > 0 && (
        <p className="odd" role="status">
          {type} has no field {unknown.map((it) => `“${it}”`).join(", ")}.
        </p>
      )}
      <Choices choices={choices} onChoice={(name, value) => onText(withField(text, name, value))} />
    </div>
  );
}

/** The fields that there are to change, each put into the patch by a click. */
function Choices(props: { choices: [string, Json][]; onChoice: (name: string, value: Json) => void }) {
  const { choices, onChoice } = props;
  if (choices.length === 0) return null;
  return (
    <fieldset className="chips choices">
      <legend className="hidden">Put a field into the patch</legend>
      {choices.map(([name, value]) => (
        <button key={name} type="button" onClick={() => onChoice(name, value)}>
          + {name}
        </button>
      ))}
    </fieldset>
  );
}

function exampleOf([first]: [string, Json][]): string {
  return first ? `{ ${JSON.stringify(first[0])}: ${JSON.stringify(first[1])} }` : "{ }";
}
