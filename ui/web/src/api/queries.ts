/** What the pages ask for, by name: the keys under which it is kept, and how fresh it must be. */
import { queryOptions, useQuery } from "@tanstack/react-query";
import { type Description, jobTypes } from "../lib/schema";
import { api, jobPath, session } from "./client";
import { sinceAsked } from "./feed";
import type {
  Children,
  EventPage,
  Flow,
  FlowDetail,
  Job,
  JobEvent,
  Known,
  Queue,
  Schedule,
  Span,
  Worker,
} from "./types";

const MAX_EVENTS = 5_000;

export const sessionQuery = queryOptions({
  queryKey: ["session"],
  queryFn: () => session(),
  staleTime: 60_000,
});

export const queuesQuery = queryOptions({
  queryKey: ["queues"],
  queryFn: async () => {
    const asked = Date.now();
    return sinceAsked((await api<{ queues: Queue[] }>("/queues")).queues, asked);
  },
  // The feed writes its counts here, and says when to ask again.
});

export const workersQuery = queryOptions({
  queryKey: ["workers"],
  queryFn: async () => (await api<{ workers: Worker[] }>("/workers")).workers,
  refetchInterval: 2_000,
});

export const schedulesQuery = queryOptions({
  queryKey: ["schedules"],
  queryFn: async () => (await api<{ schedules: Schedule[] }>("/schedules")).schedules,
  refetchInterval: 5_000,
});

export const flowsQuery = queryOptions({
  queryKey: ["flows"],
  queryFn: async () => (await api<{ flows: Flow[]; next: string | null }>("/flows?limit=100")).flows,
  refetchInterval: 2_000,
});

export const flowQuery = (id: string) =>
  queryOptions({
    queryKey: ["flow", id],
    queryFn: () => api<FlowDetail>(`/flows/${id}`),
    refetchInterval: (query) => (query.state.data?.state === "active" ? 1_000 : false),
  });

export const jobQuery = (id: string) =>
  queryOptions({ queryKey: ["job", id], queryFn: () => api<Job>(jobPath(id)) });

export const eventsQuery = (id: string) =>
  queryOptions({ queryKey: ["events", id], queryFn: () => allEvents(id) });

/** All job types that the API knows, with their fields. */
export const jobTypesQuery = queryOptions({
  queryKey: ["description"],
  queryFn: async () => jobTypes(await api<Description>("/openapi.json")),
  staleTime: 60_000,
});

export const knownQuery = (queue: string) =>
  queryOptions({
    queryKey: ["known", queue],
    queryFn: () => api<Known>(`/known?${new URLSearchParams(queue && { queue })}`),
    staleTime: 30_000,
  });

export const childrenQuery = (id: string) =>
  queryOptions({ queryKey: ["children", id], queryFn: () => api<Children>(`${jobPath(id)}/children`) });

export const spanQuery = queryOptions({
  queryKey: ["span"],
  queryFn: () => api<Span>("/span"),
  staleTime: 30_000,
});

export const useQueues = () => useQuery(queuesQuery);

async function allEvents(id: string): Promise<JobEvent[]> {
  const events: JobEvent[] = [];
  let after = "";
  while (events.length < MAX_EVENTS) {
    const page = await api<EventPage>(`${jobPath(id)}/events?limit=500&after=${after}`);
    events.push(...page.events);
    if (page.next === null) break;
    after = page.next;
  }
  return events;
}
