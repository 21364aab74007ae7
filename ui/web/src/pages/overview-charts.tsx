/** Charts of all queues: the last minutes live, or hours back from what the projector kept. */
import { useQueries } from "@tanstack/react-query";
import { lazy, Suspense, useMemo, useState } from "react";
import { api } from "../api/client";
import { KEPT_S, type Tick, useTicks } from "../api/feed";
import type { Queue, Series } from "../api/types";
import { duration, rate } from "../lib/format";
import { perSecond, worst } from "../lib/series";

const Chart = lazy(() => import("../parts/chart"));
const HEIGHT = 180;
const FRESH_MS = 15_000;
const RANGES = { live: 0, "1 h": 1, "6 h": 6, "24 h": 24, "48 h": 48 } as const;
type Range = keyof typeof RANGES;

const COUNTED = [
  ["submitted", "--waiting"],
  ["completed", "--completed"],
  ["failed", "--failed"],
] as const;

export function Charts({ queues }: { queues: Queue[] }) {
  const [range, setRange] = useState<Range>("live");
  return (
    <section className="panel">
      <header className="chart-head">
        <h2>Throughput</h2>
        <span className="dim">
          jobs per second, all queues{range === "live" && ", while this page is open"}
        </span>
        <div className="chips">
          {(Object.keys(RANGES) as Range[]).map((it) => (
            <button key={it} type="button" aria-pressed={it === range} onClick={() => setRange(it)}>
              {it}
            </button>
          ))}
        </div>
      </header>
      <Suspense fallback={<div className="chart-room" />}>
        {range === "live" ? <Live /> : <Past key={range} queues={queues} hours={RANGES[range]} />}
      </Suspense>
    </section>
  );
}

function Live() {
  const ticks = useTicks();
  const { times, lines } = useMemo(() => liveColumns(ticks), [ticks]);
  return <Chart times={times} lines={lines} unit={rate} height={HEIGHT} label="Jobs per second, live" />;
}

function Past({ queues, hours }: { queues: Queue[]; hours: number }) {
  const found = useQueries({
    queries: queues.map(({ queue }) => ({
      queryKey: ["series", queue, hours],
      queryFn: () => api<Series>(`/queues/${queue}/series?from=${Date.now() - hours * 3_600_000}`),
      refetchInterval: FRESH_MS,
    })),
    combine: (all) => all.flatMap((it) => it.data ?? []),
  });
  const { times, counted, latencies } = useMemo(() => {
    const rates = COUNTED.map(([name, color]) => ({ name, color, ...perSecond(found, name) }));
    const late = (["wait_ms", "run_ms"] as const).map((name) => ({ name, ...worst(found, name) }));
    return {
      times: rates[0]?.times ?? [],
      counted: rates.map(({ name, color, values }) => ({ name, color, values })),
      latencies: [
        { name: "wait p95", color: "--delayed", dots: true, values: late[0]?.values ?? [] },
        { name: "run p95", color: "--active", dots: true, values: late[1]?.values ?? [] },
      ],
    };
  }, [found]);
  if (found.length === 0) return <div className="chart-room" />;
  return (
    <>
      <Chart
        times={times}
        lines={counted}
        unit={rate}
        height={HEIGHT}
        label={`Jobs per second, ${hours} hours`}
      />
      <h2 className="chart-title">Latency of the slowest queue</h2>
      <Chart
        times={times}
        lines={latencies}
        unit={duration}
        height={HEIGHT}
        label={`Latency, ${hours} hours`}
      />
    </>
  );
}

/** The seconds that were seen, behind room for those that were not. */
function liveColumns(ticks: Tick[]) {
  const end = (ticks.at(-1)?.at ?? Date.now()) / 1000;
  const missing = Math.max(0, KEPT_S - ticks.length);
  const first = (ticks[0]?.at ?? end * 1000) / 1000;
  const before = Array.from({ length: missing }, (_, n) => first - missing + n);
  return {
    times: [...before, ...ticks.map((it) => it.at / 1000)],
    lines: COUNTED.map(([name, color]) => ({
      name,
      color,
      values: [
        ...before.map(() => null),
        ...ticks.map((it) => Object.values(it.rates).reduce((sum, rates) => sum + rates[name], 0)),
      ],
    })),
  };
}
