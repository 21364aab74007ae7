/** What jobs are about, as it looks: pictures, mails, words. */
import { useState } from "react";
import type { Job, Json } from "../api/types";
import { bytes } from "../lib/format";
import { Copy } from "../parts/basic";

type Picture = {
  artifact: string;
  content_type: string;
  width?: number;
  height?: number;
  bytes?: number;
  name?: string;
};
type Content = Partial<Record<"subject" | "html" | "text" | "template" | "sender", string>> & {
  to?: string[];
  cc?: string[];
  bcc?: string[];
  attachments?: { artifact: string; filename?: string }[];
};
const PARTS = { html: "HTML", text: "Text" } as const;

const MAX_PICTURES = 50;

/** All pictures named anywhere in a result. */
export function Pictures({ result }: { result: Json }) {
  const found = pictures(result).slice(0, MAX_PICTURES);
  if (found.length === 0) return null;
  return (
    <section className="panel">
      <header>
        <h2>Pictures</h2>
      </header>
      <div className="pictures">
        {found.map((it) => (
          <figure key={it.artifact + it.name}>
            <a href={`/app/api/artifacts/${it.artifact}`} target="_blank" rel="noreferrer">
              <img
                src={`/app/api/artifacts/${it.artifact}`}
                alt={it.name || "The picture that the job made"}
                width={it.width}
                height={it.height}
                loading="lazy"
              />
            </a>
            <figcaption>
              {it.name && <b>{it.name}</b>} {it.width && `${it.width} × ${it.height}`}{" "}
              {it.bytes && bytes(it.bytes)}
            </figcaption>
          </figure>
        ))}
      </div>
    </section>
  );
}

function pictures(value: Json): Picture[] {
  if (value === null || typeof value !== "object") return [];
  if (Array.isArray(value)) return value.flatMap(pictures);
  const { artifact, content_type } = value;
  if (typeof artifact === "string" && String(content_type).startsWith("image/")) return [value as Picture];
  return Object.values(value).flatMap(pictures);
}

/** The mail of an email.send, in a frame that may run nothing and load nothing. */
export function Mail({ job }: { job: Job }) {
  const [part, setPart] = useState<keyof typeof PARTS>("html");
  const mail = job.payload as Content | null;
  if (job.type !== "email.send" || !mail?.to) return null;
  const both = Boolean((mail.html && mail.text) || mail.template);
  return (
    <section className="panel">
      <header>
        <h2>{mail.subject || (mail.template ? `Mail from the template “${mail.template}”` : "Mail")}</h2>
        {both && (
          <div className="chips">
            {(["html", "text"] as const).map((it) => (
              <button key={it} type="button" aria-pressed={part === it} onClick={() => setPart(it)}>
                {PARTS[it]}
              </button>
            ))}
          </div>
        )}
      </header>
      <Envelope mail={mail} />
      <iframe className="mail" title="The mail" sandbox="" src={`/app/mail/${job.id}?part=${part}`} />
      <p className="mail-note dim">Nothing in it runs, and nothing is loaded from elsewhere.</p>
    </section>
  );
}

function Envelope({ mail }: { mail: Content }) {
  const lines = [
    ["From", mail.sender],
    ["To", mail.to?.join(", ")],
    ["Cc", mail.cc?.join(", ")],
    ["Bcc", mail.bcc?.join(", ")],
  ].filter(([, told]) => told);
  return (
    <dl className="envelope">
      {lines.map(([name, told]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{told}</dd>
        </div>
      ))}
      {mail.attachments && mail.attachments.length > 0 && (
        <div>
          <dt>Attached</dt>
          <dd>
            {mail.attachments.map(({ artifact, filename }) => (
              <a key={artifact + filename} href={`/app/api/artifacts/${artifact}`} download>
                {filename || `${artifact.slice(0, 15)}…`}
              </a>
            ))}
          </dd>
        </div>
      )}
    </dl>
  );
}

/** What a language model answered. */
export function Words({ job }: { job: Job }) {
  const result = job.result as { text?: Json } | null;
  if (!job.type.startsWith("ai.") || typeof result?.text !== "string") return null;
  return (
    <section className="panel">
      <header>
        <h2>Text</h2>
        <Copy text={result.text} />
      </header>
      <p className="tokens">{result.text}</p>
    </section>
  );
}
