/** What jobs are about, as it looks: pictures, mails, words. */
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
type Content = { to?: string[]; subject?: string; html?: string; text?: string; template?: string };

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

/** The mail of an email.send; its HTML in a frame that may run nothing and load nothing. */
export function Mail({ job }: { job: Job }) {
  const mail = job.payload as Content | null;
  if (job.type !== "email.send" || !mail || (!mail.html && !mail.text)) return null;
  return (
    <section className="panel">
      <header>
        <h2>{mail.subject || "Mail"}</h2>
        <span className="dim">to {mail.to?.join(", ")}</span>
      </header>
      {mail.html ? (
        <iframe className="mail" title="The mail" sandbox="" srcDoc={mail.html} />
      ) : (
        <p className="tokens">{mail.text}</p>
      )}
    </section>
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
