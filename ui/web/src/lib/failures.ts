/** Failures that differ only in their particulars (ids, numbers, quoted words, addresses) are one kind. */
import type { Job } from "../api/types";

const MAX_WORDS = 300;

export type Group = {
  key: string;
  error: string;
  message: string;
  type: string;
  queue: string;
  jobs: Job[];
  first: string;
  last: string;
};

/** A message without its particulars. */
export function normalised(message: string): string {
  return message
    .replace(/\bhttps?:\/\/\S+/g, "<url>")
    .replace(/[\w.+-]+@[\w-]+(\.[\w-]+)+/g, "<address>")
    .replace(/\bsha256-[0-9a-f]{8,}/g, "<artifact>")
    .replace(/\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/gi, "<uuid>")
    .replace(/\b[\w-]+\.\d+\.\d{10,15}-\d+\b/g, "<job>")
    .replace(/'[^']*'|"[^"]*"|‘[^’]*’|“[^”]*”/g, "<text>")
    .replace(/\b0x[0-9a-f]+\b|\b[0-9a-f]{12,}\b/gi, "<hex>")
    .replace(/\d+(\.\d+)?/g, "<n>")
    .trim();
}

/** The longest words that all messages of this kind share, as the server's filter finds them. */
export function sharedWords(message: string): string {
  const pieces = normalised(message)
    .split(/<(?:url|address|artifact|uuid|job|text|hex|n)>/)
    .map((it) => it.trim());
  const longest = pieces.reduce((a, b) => (b.length > a.length ? b : a), "");
  return longest.slice(0, MAX_WORDS);
}

/** Groups by job type, error and normalised message; the greatest first. */
export function grouped(jobs: Job[]): Group[] {
  const groups = new Map<string, Group>();
  for (const job of jobs) {
    const { error = "", message = "" } = job.error ?? {};
    const key = [job.queue, job.type, error, normalised(message)].join("\n");
    const at = job.finished_at ?? job.updated_at;
    const group = groups.get(key);
    if (group === undefined) {
      groups.set(key, {
        key,
        error,
        message,
        type: job.type,
        queue: job.queue,
        jobs: [job],
        first: at,
        last: at,
      });
      continue;
    }
    group.jobs.push(job);
    if (at < group.first) group.first = at;
    if (at > group.last) [group.last, group.message] = [at, message];
  }
  return [...groups.values()].sort((a, b) => b.jobs.length - a.jobs.length || (a.last < b.last ? 1 : -1));
}

/** How many of these moments lie in each of `bins` equal parts of the time from `from` to `to` (Unix ms). */
export function histogram(moments: number[], from: number, to: number, bins: number): number[] {
  const counts = new Array<number>(bins).fill(0);
  const width = Math.max(1, to - from) / bins;
  for (const at of moments) {
    const bin = Math.min(bins - 1, Math.max(0, Math.floor((at - from) / width)));
    counts[bin] = (counts[bin] ?? 0) + 1;
  }
  return counts;
}
