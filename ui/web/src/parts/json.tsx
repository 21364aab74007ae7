/** JSON as people read it: coloured, folded where it is long. */
import { useMemo, useState } from "react";
import type { Json } from "../api/types";
import { bytes } from "../lib/format";
import { Button, Copy } from "./basic";

const SHOWN_CHARS = 20_000;
const TOKEN = /("(?:\\.|[^"\\])*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

export function JsonView({ value, label }: { value: Json; label: string }) {
  const text = useMemo(() => JSON.stringify(value, null, 2), [value]);
  const [all, setAll] = useState(false);
  const shown = all ? text : text.slice(0, SHOWN_CHARS);
  return (
    <section className="json" aria-label={label}>
      <header>
        <h2>{label}</h2>
        <span className="dim">{bytes(new Blob([text]).size)}</span>
        <Copy text={text} />
      </header>
      <pre tabIndex={0}>{coloured(shown)}</pre>
      {shown.length < text.length && (
        <Button onClick={() => setAll(true)}>Show all ({bytes(text.length)})</Button>
      )}
    </section>
  );
}

function coloured(text: string) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(TOKEN)) {
    const [token, quoted, colon] = match;
    if (match.index > end) parts.push(text.slice(end, match.index));
    const kind = colon ? "name" : quoted ? "text" : /^[tfn]/.test(token) ? "word" : "number";
    parts.push(
      <span key={match.index} className={kind}>
        {quoted ?? token}
      </span>,
    );
    if (colon) parts.push(colon);
    end = match.index + token.length;
  }
  parts.push(text.slice(end));
  return parts;
}
