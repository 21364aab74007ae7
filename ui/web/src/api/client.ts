/** Requests to the dashboard's server: same origin, by cookie, with the session's token for changes. */
import type { Session } from "./types";

/** An answer that is none: the server's problem+json, or that it could not be reached (status 0). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly fields: { path: string; message: string }[] = [],
  ) {
    super(message);
  }
}

let token = "";

/** GET, or with `method` a change. Throws Problem. */
export async function request<T>(path: string, method = "GET", body?: unknown): Promise<T> {
  const headers: Record<string, string> = {};
  if (method !== "GET") headers["X-CSRF-Token"] = token;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const init: RequestInit = { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) };
  const answer = await fetch(path, init).catch(() => {
    throw new Problem(0, "The dashboard's server cannot be reached");
  });
  const text = await answer.text();
  if (!answer.ok) throw problem(answer.status, text);
  return (text ? JSON.parse(text) : null) as T;
}

/** The same, of the API: its own paths. */
export const api = <T>(path: string, method?: string, body?: unknown) =>
  request<T>(`/app/api${path}`, method, body);

/** Sets and answers who is here; the token goes into all later changes. */
export async function session(path = "/app/session", body?: unknown): Promise<Session> {
  const here = await request<Session>(path, path === "/app/session" ? "GET" : "POST", body);
  token = here.csrf;
  return here;
}

/** What the server takes for a job's id. */
const JOB_ID = /^[a-z0-9][a-z0-9_-]{0,62}\.(?:0|[1-9]\d{0,3})\.(?:0|[1-9]\d{0,14})-(?:0|[1-9]\d{0,9})$/;
export const isJobId = (text: string) => JOB_ID.test(text);

export const jobPath = (id: string) => `/jobs/${id.split(".")[0]}/${id}`;

function problem(status: number, text: string): Problem {
  try {
    const told = JSON.parse(text);
    return new Problem(status, told.detail || told.title || `Status ${status}`, told.errors ?? []);
  } catch {
    return new Problem(status, `The server answered ${status}`);
  }
}
