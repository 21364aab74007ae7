/** A job as a command or a program that submits another one like it. */
import type { Job, Json } from "../api/types";

/** `origin`: of the API, as the reader's machine would reach it. */
export function asCurl(job: Pick<Job, "queue" | "type" | "payload" | "tags">, origin: string): string {
  const body = JSON.stringify(
    { type: job.type, payload: job.payload, ...(job.tags.length > 0 && { tags: job.tags }) },
    null,
    2,
  );
  return [
    `curl ${origin}/jobs/${job.queue} \\`,
    '  -H "Content-Type: application/json" \\',
    '  -H "Authorization: Bearer $PENSTOCK_API_KEY" \\',
    `  --data-binary '${body.replaceAll("'", "'\\''")}'`,
  ].join("\n");
}

export function asPython(job: Pick<Job, "queue" | "type" | "payload" | "tags">, origin: string): string {
  const tags = job.tags.length > 0 ? `, "tags": ${literal(job.tags, 1)}` : "";
  return [
    "import os",
    "",
    "import httpx",
    "",
    "answer = httpx.post(",
    `    ${JSON.stringify(`${origin}/jobs/${job.queue}`)},`,
    '    headers={"Authorization": f"Bearer {os.environ[\'PENSTOCK_API_KEY\']}"},',
    `    json={"type": ${JSON.stringify(job.type)}, "payload": ${literal(job.payload, 1)}${tags}},`,
    ")",
    "answer.raise_for_status()",
    'print(answer.json()["id"])',
  ].join("\n");
}

/** JSON as a Python literal, indented by `depth` levels. */
function literal(value: Json, depth: number): string {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = "    ".repeat(depth + 1);
  const outer = "    ".repeat(depth);
  const array = Array.isArray(value);
  const parts = array
    ? value.map((it) => literal(it, depth + 1))
    : Object.entries(value).map(([name, it]) => `${JSON.stringify(name)}: ${literal(it, depth + 1)}`);
  const [open, close] = array ? "[]" : "{}";
  return parts.length === 0
    ? `${open}${close}`
    : `${open}\n${parts.map((it) => `${inner}${it},\n`).join("")}${outer}${close}`;
}
