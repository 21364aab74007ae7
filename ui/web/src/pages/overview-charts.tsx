/** Charts of all queues: the last minutes live, or hours back from what the projector kept. */
import { keepPreviousData, useQueries } from "@tanstack/react-query";
import { lazy, Suspense, useMemo, useState } from "react";
import { api } from "../api/client";
import { KEPT_S, useTicks } from "../api/feed";
import type { Queue, Series } from "../api/types";
import { duration, rate } from "../lib/format";
import { lastSeconds, type Second, total } from "../lib/seconds";
import { perSecond, worst } from "../lib/series";
import type { Line } from "../parts/chart";

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

/** The last minutes of these queues, by the second. */
export function useSeconds(queues: Queue[]): Second[] {
  const ticks = useTicks();
  const kept = useSeries(queues, KEPT_S + 60, Number.POSITIVE_INFINITY);
  return useMemo(() => lastSeconds(ticks, kept, ticks.at(-1)?.at ?? Date.now(), KEPT_S), [ticks, kept]);
}

export function Charts({ queues, seconds }: { queues: Queue[]; seconds: Second[] }) {
  const [range, setRange] = useState<Range>("live");
  return (
    <section className="panel">
      <header className="chart-head">
        <h2>Throughput</h2>
        <span className="dim">jobs per second, all queues</span>
        <div className="chips">
          {(Object.keys(RANGES) as Range[]).map((it) => (
            <button key={it} type="button" aria-pressed={it === range} onClick={() => setRange(it)}>
              {it}
            </button>
          ))}
        </div>
      </header>
      <Suspense fallback={<div className="chart-room" />}>
        {range === "live" ? (
          <Live seconds={seconds} />
        ) : (
          <Past key={range} queues={queues} hours={RANGES[range]} />
        )}
      </Suspense>
    </section>
  );
}

function Live({ seconds }: { seconds: Second[] }) {
  const { times, lines } = useMemo(
    () => ({
      times: seconds.map((it) => it.at / 1000),
      lines: COUNTED.map(([name, color]) => ({
        name,
        color,
        values: seconds.map((it) => total(it, name)),
      })),
    }),
    [seconds],
  );
  return <Throughput times={times} lines={lines} told="the last 5 minutes" />;
}

function Past({ queues, hours }: { queues: Queue[]; hours: number }) {
  const { series, readAt } = useSeries(queues, hours * 3600, FRESH_MS);
  const { times, counted, latencies } = useMemo(() => {
    const rates = COUNTED.map(([name, color]) => ({ name, color, ...perSecond(series, name, readAt) }));
    const late = (["wait_ms", "run_ms"] as const).map((name) => ({ name, ...worst(series, name) }));
    return {
      times: rates[0]?.times ?? [],
      counted: rates.map(({ name, color, values }) => ({ name, color, values })),
      latencies: [
        { name: "wait p95", color: "--delayed", dots: true, values: late[0]?.values ?? [] },
        { name: "run p95", color: "--active", dots: true, values: late[1]?.values ?? [] },
      ],
    };
  }, [series, readAt]);
  if (series.length === 0) return <div className="chart-room" />;
  return (
    <>
      <Throughput
        times={times}
        lines={counted}
        told={hours === 1 ? "the last hour" : `the last ${hours} hours`}
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

/** The lines, or that they are all nought. */
function Throughput({ times, lines, told }: { times: number[]; lines: Line[]; told: string }) {
  const quiet = lines.every((it) => it.values.every((value) => !value));
  return (
    <div className="chart-place">
      <Chart times={times} lines={lines} unit={rate} height={HEIGHT} label={`Jobs per second, ${told}`} />
      {quiet && <p className="nothing">Nothing happened in {told}.</p>}
    </div>
  );
}

const NONE = { series: [] as Series[], readAt: 0 };

/** What the projector kept of the last `seconds`, read anew every `fresh` ms. */
function useSeries(queues: Queue[], seconds: number, fresh: number) {
  return useQueries({
    queries: queues.map(({ queue }) => ({
      queryKey: ["series", queue, seconds],
      queryFn: () => api<Series>(`/queues/${queue}/series?from=${Date.now() - seconds * 1000}`),
      placeholderData: keepPreviousData,
      ...(Number.isFinite(fresh) && { refetchInterval: fresh }),
    })),
    combine: together,
  });
}

function together(all: { data: Series | undefined; isPending: boolean; dataUpdatedAt: number }[]) {
  if (all.length === 0 || all.some((it) => it.isPending)) return NONE;
  return {
    series: all.flatMap((it) => it.data ?? []),
    readAt: Math.min(...all.map((it) => it.dataUpdatedAt)),
  };
}
