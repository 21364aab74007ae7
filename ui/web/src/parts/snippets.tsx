/** A job as a command or a program, to copy: for the API's real address, and never with a key in it. */
import { useContext, useState } from "react";
import { asCurl, asPython } from "../lib/snippets";
import { Copy } from "./basic";
import { Here } from "./here";

const KINDS = { curl: asCurl, Python: asPython };
type Kind = keyof typeof KINDS;

export function Snippets({ job, title }: { job: Parameters<typeof asCurl>[0]; title: string }) {
  const api = useContext(Here)?.api;
  const [kind, setKind] = useState<Kind>("curl");
  if (!api) return null;
  const text = KINDS[kind](job, api);
  return (
    <section className="json" aria-label={title}>
      <header>
        <h2>{title}</h2>
        <div className="chips">
          {(Object.keys(KINDS) as Kind[]).map((it) => (
            <button key={it} type="button" aria-pressed={kind === it} onClick={() => setKind(it)}>
              {it}
            </button>
          ))}
        </div>
        <Copy text={text} label={`Copy ${kind}`} />
      </header>
      <pre tabIndex={0}>{text}</pre>
    </section>
  );
}
