/** The small parts that all pages are made of. */
import { type ButtonHTMLAttributes, type ReactNode, useEffect, useRef, useState } from "react";
import { Problem } from "../api/client";
import type { State } from "../api/types";
import { ago, moment } from "../lib/format";
import { Icon, type IconName } from "./icons";
import { useNow } from "./now";

export function Badge({ state }: { state: State | string }) {
  return (
    <span className="badge" data-state={state}>
      {state}
    </span>
  );
}

type ButtonProps = ButtonHTMLAttributes<HTMLButtonElement> & {
  icon?: IconName;
  kind?: "plain" | "primary" | "danger" | "quiet";
};

export function Button({ icon, kind = "plain", children, className = "", ...rest }: ButtonProps) {
  return (
    <button type="button" className={`button ${kind} ${className}`} {...rest}>
      {icon && <Icon name={icon} />}
      {children}
    </button>
  );
}

export function PageHead({
  title,
  note,
  children,
}: {
  title: ReactNode;
  note?: ReactNode;
  children?: ReactNode;
}) {
  return (
    <header className="page-head">
      <div>
        <h1>{title}</h1>
        {note && <p className="note">{note}</p>}
      </div>
      {children && <div className="actions">{children}</div>}
    </header>
  );
}

/** "12 s ago", with the moment itself on hover. */
export function Ago({ at }: { at: string }) {
  const now = useNow();
  return (
    <time dateTime={at} title={moment(at, now)}>
      {ago(at, now)}
    </time>
  );
}

/** Where there is nothing: why, and with `act` what to do about it. */
export function Empty(props: { title: string; children?: ReactNode; act?: ReactNode }) {
  const { title, children, act } = props;
  return (
    <div className="empty">
      <strong>{title}</strong>
      {children && <p>{children}</p>}
      {act}
    </div>
  );
}

/** What went wrong, in words; nothing if nothing did. */
export function Trouble({ error, again }: { error: unknown; again?: () => void }) {
  if (!error) return null;
  const fields = error instanceof Problem ? error.fields : [];
  return (
    <div className="trouble" role="alert">
      <Icon name="failures" />
      <div>
        {error instanceof Error ? error.message : String(error)}
        {fields.length > 0 && (
          <ul>
            {fields.map((it) => (
              <li key={it.path + it.message}>
                <code>{it.path}</code> {it.message}
              </li>
            ))}
          </ul>
        )}
      </div>
      {again && <Button onClick={again}>Try again</Button>}
    </div>
  );
}

export function Loading({ rows = 6 }: { rows?: number }) {
  return (
    <div className="loading" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, n) => (
        <span key={n} />
      ))}
    </div>
  );
}

/** Copies on a click, and says so. */
export function Copy({ text, label = "Copy" }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return;
    const back = setTimeout(() => setDone(false), 1500);
    return () => clearTimeout(back);
  }, [done]);
  const copy = () => navigator.clipboard.writeText(text).then(() => setDone(true));
  return (
    <Button kind="quiet" icon={done ? "check" : "copy"} onClick={copy} aria-live="polite">
      {done ? "Copied" : label}
    </Button>
  );
}

/** A modal dialog: the browser's own, which keeps the focus in it and closes on Escape. */
export function Dialog(props: {
  title: string;
  open: boolean;
  onClose: () => void;
  children: ReactNode;
  wide?: boolean;
}) {
  const { title, open, onClose, children, wide = false } = props;
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = box.current;
    if (open && dialog && !dialog.open) dialog.showModal();
    if (!open) dialog?.close();
  }, [open]);
  if (!open) return null;
  return (
    <dialog ref={box} className={wide ? "dialog wide" : "dialog"} aria-label={title} onClose={onClose}>
      <header>
        <h2>{title}</h2>
        <Button kind="quiet" icon="cancel" aria-label="Close" onClick={onClose} />
      </header>
      {children}
    </dialog>
  );
}

/** A figure with its name. */
export function Figure({ name, value, tone }: { name: string; value: ReactNode; tone?: string }) {
  return (
    <div className="figure" data-tone={tone}>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
