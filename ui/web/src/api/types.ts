/** What the API answers, as far as the pages show it. Times are ISO 8601 in UTC, `_ms` and `_s` say units. */

export const STATES = ["waiting", "delayed", "active", "completed", "failed", "cancelled"] as const;
export type State = (typeof STATES)[number];
export type Counts = Record<State, number>;

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

export type Session = {
  user: string | null;
  role: "operate" | "read";
  login_needed: boolean;
  csrf: string;
  version: string;
  notice: string | null;
  /** Where programs reach the API, and whether it asks for a key; for who is in. */
  api: Api | null;
};
export type Api = { url: string; key: boolean };

export type Rates = { submitted: number; started: number; completed: number; failed: number };
type Quantiles = { count: number; p50: number | null; p95: number | null; p99: number | null };
type Windows = { last_5_minutes: Quantiles; last_60_minutes: Quantiles };

export type Queue = {
  queue: string;
  paused: boolean;
  limits: Partial<Record<"rate" | "burst" | "concurrency" | "per_group" | "backlog", number>>;
  counts: Counts;
  types: Record<string, Counts>;
  totals: Record<string, number>;
  failures: Record<string, number>;
  rates: Record<"last_minute" | "last_5_minutes", Rates & { retried: number }>;
  wait_ms: Windows;
  run_ms: Windows;
  oldest_waiting_s: number | null;
  lag_s: number;
};

export type JobRow = {
  id: string;
  queue: string;
  type: string;
  state: State;
  attempt: number;
  submitted_at: string;
  ready_at: string;
  updated_at: string;
  misfits: number;
};
export type JobPage = { jobs: JobRow[]; next: string | null };
/** As they were; `missing`: jobs of that time that retention has removed since. */
export type PastPage = JobPage & { missing: number };

export type Failure = { error: string; message: string; reason: string; traceback: string };

export type Job = JobRow & {
  priority: "high" | "normal" | "low";
  attempts: number;
  timeout: number;
  tags: string[];
  key: string;
  by: string;
  payload: Json;
  started_at: string | null;
  finished_at: string | null;
  wait_ms: number | null;
  run_ms: number | null;
  progress: { fraction: number; message: string; data: Json } | null;
  result: Json;
  error: Failure | null;
  origin: string;
  group: string;
  unique: string;
  ttl: number;
};

export type JobEvent = { position: string; at: string; event: string; data: Record<string, Json> };
export type EventPage = { events: JobEvent[]; next: string | null };

export type Worker = {
  name: string;
  queues: string[];
  types: string[];
  slots: number;
  running: number;
  stuck: number;
  leaving: boolean;
  host: string;
  pid: number;
  version: string;
  started_at: string;
  seen_at: string;
  memory: number;
  jobs: { id: string; type: string; attempt: number; since: string }[];
};

export type Overlap = "skip" | "queue" | "cancel" | "allow";
export type CatchUp = "none" | "last" | "all";
/** `job` as its event will be; what is left out is as it usually is. */
export type Schedule = {
  name: string;
  queue: string;
  job: { type: string; payload: Json; [option: string]: Json };
  overlap: Overlap;
  catch_up: CatchUp;
  paused: boolean;
  next: string[];
  set_at: string;
  set_by: string;
  cron?: string;
  every?: number;
  tz?: string;
  start?: string;
  end?: string;
  jitter?: number;
  window?: number;
  limit?: number;
  waiting?: number;
  last_job?: string;
  last?: { event: string; at: string; tick: string; job?: string; reason?: string };
};

export type FlowNode = {
  name: string;
  type: string;
  queue: string;
  state: "waiting" | "called" | "submitted" | "completed" | "failed" | "cancelled" | "skipped";
  after?: string[];
  job?: string;
  why?: string;
};
export type Flow = {
  id: string;
  name: string;
  state: "active" | "completed" | "failed" | "cancelled";
  by: string;
  submitted_at: string;
  ended_at: string | null;
  progress: number;
  counts: Record<string, number>;
};
export type FlowDetail = Flow & { cancelled: boolean; nodes: FlowNode[] };

export type Changes = {
  at: number;
  queues: Record<string, { counts: Counts; rates: Rates }>;
  jobs: JobRow[];
  more: number;
  job_events?: JobEvent[];
};

export type FailureGroup = {
  error: string;
  message: string;
  sample: string;
  count: number;
  first_at: string;
  last_at: string;
  types: Record<string, number>;
  reasons: Record<string, number>;
  bars: number[];
  jobs: string[];
};
export type FailureList = { queue: string; failed: number; looked_at: number; groups: FailureGroup[] };

type Durations = Record<"p50" | "p95" | "p99", (number | null)[]>;
/** Columns of equal length; `at` in Unix ms, counts of events in `step_s`. */
export type Series = Record<"at" | "submitted" | "started" | "completed" | "failed", number[]> & {
  queue: string;
  step_s: number;
  wait_ms: Durations;
  run_ms: Durations;
};
/** What can be looked back on; `archived`: there is an archive, and what retention has removed is told too. */
export type Span = {
  from_at: string | null;
  to_at: string;
  queues: Record<string, string>;
  archived: boolean;
};

/** Words by which jobs can be found. */
export type Known = Record<"types" | "tags" | "workers" | "errors", string[]>;
/** Jobs made from one; `complete`: whether all were looked at that could be. */
export type Children = { jobs: JobRow[]; looked_at: number; complete: boolean };
