/** Which jobs are shown: a bar of fields, kept in the address. What can be said is completed from what the
 * server knows; it is asked once for that, not with each key. */
import { useQuery } from "@tanstack/react-query";
import { type KeyboardEvent as Press, useEffect, useEffectEvent, useId, useRef, useState } from "react";
import { isJobId, jobPath } from "../api/client";
import { knownQuery } from "../api/queries";
import { type Queue, STATES, type State } from "../api/types";
import { typing } from "../keys";
import { type Filter, isoTime, localTime, minutesAgo } from "../lib/filter";
import { count } from "../lib/format";
import { Button } from "../parts/basic";
import { go } from "../router";

const TYPING_MS = 400;
const DATE_MS = 1_200; // a year is typed a digit at a time
const NEVER: Filter = {
  ...{ queue: "", state: "", type: "", tag: "", worker: "", error: "" },
  ...{ text: "", origin: "", from: "", to: "" },
};
const AGES: [string, number][] = [
  ["15 m", 15],
  ["1 h", 60],
  ["1 d", 24 * 60],
];

type Change = (changes: Partial<Filter>) => void;
type BarProps = { filter: Filter; queues: Queue[]; change: Change };

export function FilterBar({ filter, queues, change }: BarProps) {
  const { tag, worker, error, from, to, origin } = filter;
  const more = [tag, worker, error, from || to, origin].filter(Boolean).length;
  const [open, setOpen] = useState(more > 0);
  const chosen = queues.filter((it) => !filter.queue || it.queue === filter.queue);
  const types = [...new Set(chosen.flatMap((it) => Object.keys(it.types)))].sort();
  return (
    <search className="filters" aria-label="Which jobs">
      <div className="filter-line">
        <select
          aria-label="Queue"
          value={filter.queue}
          onChange={(event) => change({ queue: event.target.value, type: "" })}
        >
          <option value="">All queues</option>
          {queues.map((it) => (
            <option key={it.queue}>{it.queue}</option>
          ))}
        </select>
        <StateChips filter={filter} queues={chosen} change={change} />
        <TypeField type={filter.type} types={types} change={change} />
        <WordField
          label="Text in payload, result or error"
          placeholder="Text in the job"
          value={filter.text}
          onValue={(text) => change({ text })}
          whileTyping
        />
        <Button
          icon="filter"
          title="More filters"
          aria-expanded={open}
          aria-controls="more-filters"
          onClick={() => setOpen(!open)}
        >
          <span className="hidden">More filters</span>
          {more > 0 && <b>{more}</b>}
        </Button>
      </div>
      {open && <MoreFilters filter={filter} queues={queues} change={change} />}
    </search>
  );
}

function StateChips({ filter, queues, change }: BarProps) {
  const total = (state: State) => queues.reduce((sum, it) => sum + countOf(it, state, filter.type), 0);
  return (
    <fieldset className="chips">
      <legend className="hidden">State</legend>
      <button type="button" aria-pressed={!filter.state} onClick={() => change({ state: "" })}>
        all
      </button>
      {STATES.map((state) => (
        <button
          type="button"
          key={state}
          data-state={state}
          aria-pressed={filter.state === state}
          onClick={() => change({ state: filter.state === state ? "" : state })}
        >
          {state} <small>{count(total(state))}</small>
        </button>
      ))}
    </fieldset>
  );
}

const countOf = (queue: Queue, state: State, type: string) =>
  type ? (queue.types[type]?.[state] ?? 0) : queue.counts[state];

/** A type, or a job's id, which leads to that job; `/` leads here. */
function TypeField({ type, types, change }: { type: string; types: string[]; change: Change }) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.key !== "/" || typing(event)) return;
      event.preventDefault();
      place.current?.querySelector("input")?.select();
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, []);
  return (
    <div className="of-type" ref={place}>
      <WordField
        label="Job type or id"
        placeholder="Type or id  ( / )"
        value={type}
        words={types}
        onValue={(typed) => (isJobId(typed) ? go(jobPath(typed)) : change({ type: typed }))}
      />
    </div>
  );
}

/** What only the jobs' own events tell. */
function MoreFilters({ filter, change }: BarProps) {
  const { data: known } = useQuery(knownQuery(filter.queue));
  const fields = [
    { name: "tag", label: "Tag", words: known?.tags },
    { name: "worker", label: "Worker", words: known?.workers },
    { name: "error", label: "Error", words: known?.errors },
  ] as const;
  return (
    <div className="filter-line" id="more-filters">
      {fields.map(({ name, label, words }) => (
        <label key={name} className={`of-${name}`}>
          <span>{label}</span>
          <WordField
            value={filter[name]}
            words={words ?? []}
            placeholder={name === "error" ? "Class: message, or a part" : "any"}
            onValue={(value) => change({ [name]: value })}
          />
        </label>
      ))}
      <TimeFields filter={filter} change={change} />
      {filter.origin && (
        <Button icon="cancel" onClick={() => change({ origin: "" })}>
          Made from <code>{filter.origin}</code>
        </Button>
      )}
      <Button kind="quiet" className="clear" onClick={() => change(NEVER)}>
        Clear all
      </Button>
    </div>
  );
}

/** When they were submitted, by the reader's clock. */
function TimeFields({ filter, change }: { filter: Filter; change: Change }) {
  return (
    <>
      <TimeField label="Submitted from" value={filter.from} onValue={(from) => change({ from })} />
      <TimeField label="Before" value={filter.to} onValue={(to) => change({ to })} />
      <fieldset className="chips ages">
        <legend>In the last</legend>
        {AGES.map(([told, minutes]) => (
          <button key={told} type="button" onClick={() => change({ from: minutesAgo(minutes), to: "" })}>
            {told}
          </button>
        ))}
      </fieldset>
    </>
  );
}

function TimeField(props: { label: string; value: string; onValue: (iso: string) => void }) {
  const { label, value, onValue } = props;
  const told = (local: string) => onValue(isoTime(local));
  const { typed, setTyped, tell } = useTyped(localTime(value), told, DATE_MS);
  return (
    <label className="of-time">
      <span>{label}</span>
      <input
        type="datetime-local"
        value={typed}
        onChange={(event) => setTyped(event.target.value)}
        onBlur={() => tell(typed)}
      />
    </label>
  );
}

/** What is typed, and told when it is time; `pause`: also when the typing pauses for so many ms. */
function useTyped(value: string, onValue: (value: string) => void, pause: number | null) {
  const [typed, setTyped] = useState(value);
  const [shown, setShown] = useState(value);
  if (shown !== value) {
    setShown(value);
    if (typed.trim() !== value) setTyped(value);
  }
  const tell = (text: string) => {
    if (text.trim() !== value) onValue(text.trim());
  };
  const late = useEffectEvent(() => tell(typed));
  // biome-ignore lint/correctness/useExhaustiveDependencies: each key begins the pause anew
  useEffect(() => {
    if (pause === null) return;
    const pausing = setTimeout(late, pause);
    return () => clearTimeout(pausing);
  }, [typed, pause]);
  return { typed, setTyped, tell };
}

/** A field that is completed from `words`. What is typed counts with Enter, when the field is left, or when it
 * is one of the words; `whileTyping`: also when the typing pauses. */
function WordField(props: {
  value: string;
  onValue: (value: string) => void;
  label?: string;
  placeholder: string;
  words?: string[];
  whileTyping?: boolean;
}) {
  const { value, onValue, label, placeholder, words, whileTyping = false } = props;
  const list = useId();
  const { typed, setTyped, tell } = useTyped(value, onValue, whileTyping ? TYPING_MS : null);
  const type = (text: string) => {
    setTyped(text);
    if (text === "" || words?.includes(text.trim())) tell(text);
  };
  const press = (event: Press<HTMLInputElement>) => {
    if (event.key === "Enter") tell(typed);
    if (event.key === "Escape") event.currentTarget.blur();
  };
  return (
    <>
      <input
        type="search"
        aria-label={label}
        placeholder={placeholder}
        list={words && list}
        value={typed}
        maxLength={300}
        autoComplete="off"
        spellCheck={false}
        onChange={(event) => type(event.target.value)}
        onBlur={() => tell(typed)}
        onKeyDown={press}
      />
      {words && (
        <datalist id={list}>
          {words.map((it) => (
            <option key={it} value={it} />
          ))}
        </datalist>
      )}
    </>
  );
}
