/** The fields of a form: those that a contract makes, and what is wrong with what was typed. */
import type { ReactNode } from "react";
import { Problem } from "../api/client";
import { type Field, isLong } from "../lib/schema";

type Typed = { target: { value: string } };

/** A field with its name above, and below what it is about or what is wrong with it. */
export function Labelled(props: {
  name: ReactNode;
  about?: ReactNode;
  wrong?: string | undefined;
  children: ReactNode;
}) {
  const { name, about, wrong, children } = props;
  return (
    <label data-wrong={Boolean(wrong)}>
      <span>{name}</span>
      {children}
      {wrong ? <small role="alert">{wrong}</small> : about && <small>{about}</small>}
    </label>
  );
}

/** What the server finds wrong, by field; `path` is where all of them begin. */
export function wrongOf(error: unknown, path = ""): Record<string, string> {
  const fields = error instanceof Problem ? error.fields : [];
  const inside = fields.filter((it) => it.path.startsWith(path));
  return Object.fromEntries(inside.map((it) => [it.path.slice(path.length), it.message]));
}

/** A field of a payload. */
export function FieldInput(props: {
  field: Field;
  value: string;
  wrong?: string | undefined;
  onValue: (value: string) => void;
}) {
  const { field, value, wrong, onValue } = props;
  const initial = field.initial === undefined || field.initial === null ? "" : JSON.stringify(field.initial);
  const shared = {
    value,
    required: field.required,
    placeholder: initial.replace(/^"|"$/g, ""),
    "aria-invalid": Boolean(wrong),
    onChange: (event: Typed) => onValue(event.target.value),
  };
  const { kind, schema } = field;
  const name = (
    <>
      {field.name}
      {field.required && <em> required</em>}
      {kind === "json" && <small> JSON</small>}
    </>
  );
  return (
    <Labelled name={name} about={field.about} wrong={wrong}>
      {(kind === "choice" || kind === "switch") && (
        <select value={value} required={field.required} onChange={shared.onChange}>
          <option value="">{initial ? `as it is: ${initial}` : "choose"}</option>
          {(kind === "switch" ? ["true", "false"] : field.choices.map(String)).map((it) => (
            <option key={it}>{it}</option>
          ))}
        </select>
      )}
      {kind === "number" && (
        <input type="number" step="any" min={schema.minimum} max={schema.maximum} {...shared} />
      )}
      {kind === "json" && <textarea rows={3} spellCheck={false} {...shared} />}
      {kind === "text" && (isLong(field) ? <textarea rows={3} {...shared} /> : <input {...shared} />)}
    </Labelled>
  );
}
