/** A job as a command or a program that submits another one like it. */
import type { Api, Job, Json } from "../api/types";

type Like = Pick<Job, "queue" | "type" | "payload"> & Partial<Pick<Job, "tags" | "priority" | "group">>;

/** For a shell; where the API asks for a key, it is the environment's. */
export function asCurl(job: Like, { url, key }: Api): string {
  const body = JSON.stringify(asked(job), null, 2);
  return [
    `curl ${url}/jobs/${job.queue} \\`,
    '  -H "Content-Type: application/json" \\',
    ...(key ? ['  -H "Authorization: Bearer $PENSTOCK_API_KEY" \\'] : []),
    `  --data-binary '${body.replaceAll("'", "'\\''")}'`,
  ].join("\n");
}

export function asPython(job: Like, { url, key }: Api): string {
  return [
    ...(key ? ["import os", ""] : []),
    "import httpx",
    "",
    "answer = httpx.post(",
    `    ${JSON.stringify(`${url}/jobs/${job.queue}`)},`,
    ...(key ? ['    headers={"Authorization": f"Bearer {os.environ[\'PENSTOCK_API_KEY\']}"},'] : []),
    `    json=${literal(asked(job), 1)},`,
    ")",
    "answer.raise_for_status()",
    'print(answer.json()["id"])',
  ].join("\n");
}

/** What is told beside the payload: only what is not the rule. */
function asked({ type, payload, tags = [], priority = "normal", group = "" }: Like): Record<string, Json> {
  return {
    type,
    payload,
    ...(tags.length > 0 && { tags }),
    ...(priority !== "normal" && { priority }),
    ...(group && { group }),
  };
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
