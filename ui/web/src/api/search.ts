/** The search over all jobs: lines of JSON that come while the server looks. */
import { Problem } from "./client";
import type { JobRow } from "./types";

export type Match = { job: JobRow; found_in: string | null };
export type Looked = { looked: number; of?: number; at?: string | null; found: number; next?: string | null };
type Line = { match?: Match; progress?: Looked; end?: Looked };
/** What came at once. */
export type News = { matches: Match[]; looked: Looked | undefined };

/** Tell what comes; ends with the search, or when `signal` stops it. Throws Problem. */
export async function search(query: URLSearchParams, signal: AbortSignal, onNews: (news: News) => void) {
  const answer = await fetch(`/app/api/jobs?${query}`, { signal });
  if (!answer.ok || !answer.body) {
    const told = await answer.json().catch(() => null);
    throw new Problem(answer.status, told?.detail ?? `The server answered ${answer.status}`, told?.errors);
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const lines = (rest + part.value).split("\n");
    rest = lines.pop() ?? "";
    const read = lines.filter(Boolean).map((it) => JSON.parse(it) as Line);
    onNews({
      matches: read.flatMap((it) => it.match ?? []),
      looked: read.map((it) => it.progress ?? it.end).findLast((it) => it !== undefined),
    });
  }
}
