/** All jobs: a live list of any length, or where the lists cannot tell which fit, a search through the log. */
import { lazy, Suspense, useState } from "react";
import { useQueues } from "../api/queries";
import { type Filter, filterOf, forMany, isListed, mayRedrive } from "../lib/filter";
import { Button, Loading, PageHead, Trouble } from "../parts/basic";
import { type Act, BulkDialog } from "../parts/bulk";
import { useMayOperate } from "../parts/here";
import { useSearch } from "../router";
import { FilterBar } from "./jobs-filters";
import { JobList } from "./jobs-list";
import { SearchResults } from "./jobs-search";

const RedriveDialog = lazy(() => import("../parts/redrive"));

export function Jobs() {
  const [params, change] = useSearch();
  const { data: queues, error, refetch } = useQueues();
  const filter = filterOf(params);
  const key = Object.values(filter).join("\n");
  return (
    <div className="fill">
      <PageHead title="Jobs">
        <FilterActs filter={filter} />
      </PageHead>
      <FilterBar filter={filter} queues={queues ?? []} change={change} />
      <Trouble error={queues ? null : error} again={refetch} />
      {!isListed(filter) ? (
        <SearchResults key={key} filter={filter} />
      ) : queues ? (
        <JobList key={key} filter={filter} names={queues.map((it) => it.queue).join()} />
      ) : (
        !error && <Loading rows={12} />
      )}
    </div>
  );
}

const ACTS: Record<string, [Act, string][]> = {
  waiting: [["cancel", "Cancel all…"]],
  delayed: [
    ["cancel", "Cancel all…"],
    ["promote", "Run all now…"],
  ],
  active: [["cancel", "Cancel all…"]],
  failed: [
    ["discard", "Discard all…"],
    ["retry", "Run all again…"],
  ],
};

/** What can be done to all that fit the filter, where the server can be told all of it. */
function FilterActs({ filter }: { filter: Filter }) {
  const [act, setAct] = useState<Act | null>(null);
  const [again, setAgain] = useState(false);
  const many = forMany(filter);
  if (!useMayOperate() || !many) return null;
  return (
    <>
      {ACTS[filter.state]?.map(([one, name]) => (
        <Button key={one} onClick={() => setAct(one)}>
          {name}
        </Button>
      ))}
      {mayRedrive(many) && <Button onClick={() => setAgain(true)}>Submit again as new jobs…</Button>}
      <BulkDialog act={act} filter={many} onClose={() => setAct(null)} />
      {again && (
        <Suspense>
          <RedriveDialog filter={many} onClose={() => setAgain(false)} />
        </Suspense>
      )}
    </>
  );
}
