/** The command palette: pages, queues and commands by a few letters, or a job by its id; and the keys. */
import { type KeyboardEvent, useMemo, useState } from "react";
import { jobPath } from "./api/client";
import { useQueues } from "./api/queries";
import { STATES } from "./api/types";
import { Dialog } from "./parts/basic";
import { Icon, type IconName } from "./parts/icons";
import { flipTheme } from "./parts/theme";
import { PLACES } from "./places";
import { go } from "./router";

type Command = { name: string; icon: IconName; run: () => void };

const JOB_ID = /^[\w-]+\.\d+\.\d+-\d+$/;
const SHOWN = 9;

export function Palette({ mode, onClose }: { mode: "closed" | "commands" | "help"; onClose: () => void }) {
  return (
    <>
      <Dialog title="Go to" open={mode === "commands"} onClose={onClose}>
        <Commands onClose={onClose} />
      </Dialog>
      <Dialog title="Keys" open={mode === "help"} onClose={onClose}>
        <Help />
      </Dialog>
    </>
  );
}

function Commands({ onClose }: { onClose: () => void }) {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const all = useCommands();
  const asked = text.trim();
  const found = JOB_ID.test(asked)
    ? [{ name: `Job ${asked}`, icon: "jobs" as const, run: () => go(jobPath(asked)) }]
    : all.filter((it) => fits(it.name, asked)).slice(0, SHOWN);
  const run = (command: Command | undefined) => {
    if (!command) return;
    onClose();
    command.run();
  };
  const press = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      setAt((at + step + found.length) % Math.max(1, found.length));
    }
    if (event.key === "Enter") run(found[at]);
  };
  return (
    <div className="palette">
      <input
        // biome-ignore lint/a11y/noAutofocus: it was opened to type in
        autoFocus
        role="combobox"
        aria-expanded
        aria-controls="commands"
        aria-activedescendant={found.length > 0 ? `command-${at}` : undefined}
        aria-label="A page, a queue, a command or a job's id"
        placeholder="A page, a queue, a command or a job's id"
        value={text}
        onChange={(event) => {
          setText(event.target.value);
          setAt(0);
        }}
        onKeyDown={press}
      />
      <div id="commands" role="listbox" aria-label="Commands">
        {found.map((it, n) => (
          <div
            key={it.name}
            id={`command-${n}`}
            role="option"
            tabIndex={-1}
            aria-selected={n === at}
            onClick={() => run(it)}
            onKeyDown={press}
            onMouseMove={() => setAt(n)}
          >
            <Icon name={it.icon} /> {it.name}
          </div>
        ))}
        {found.length === 0 && <p className="dim">Nothing of that name.</p>}
      </div>
    </div>
  );
}

function useCommands(): Command[] {
  const { data: queues = [] } = useQueues();
  return useMemo(
    () => [
      ...PLACES.map((it) => ({ name: it.name, icon: it.icon, run: () => go(it.to) })),
      ...queues.map(({ queue }) => ({
        name: `Jobs of ${queue}`,
        icon: "jobs" as const,
        run: () => go(`/jobs?queue=${queue}`),
      })),
      ...STATES.map((state) => ({
        name: `Jobs ${state}`,
        icon: "jobs" as const,
        run: () => go(`/jobs?state=${state}`),
      })),
      { name: "Light or dark", icon: "theme" as const, run: flipTheme },
    ],
    [queues],
  );
}

/** All letters, in their order. */
function fits(name: string, asked: string): boolean {
  const lower = name.toLowerCase();
  let at = -1;
  return [...asked.toLowerCase()].every((letter) => {
    at = lower.indexOf(letter, at + 1);
    return at >= 0;
  });
}

function Help() {
  const keys: [string, string][] = [
    ["Ctrl K", "go to a page, a queue, a command or a job"],
    ["/", "filter the jobs"],
    ["j  k", "next and previous job"],
    ["Enter", "open the job"],
    ["Esc", "let go; close"],
    ["?", "these keys"],
    ...PLACES.map((it): [string, string] => [`g ${it.key}`, it.name.toLowerCase()]),
  ];
  return (
    <dl className="keys">
      {keys.map(([key, what]) => (
        <div key={key}>
          <dt>
            <kbd>{key}</kbd>
          </dt>
          <dd>{what}</dd>
        </div>
      ))}
    </dl>
  );
}
