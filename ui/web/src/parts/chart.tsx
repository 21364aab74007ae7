/** Lines over time (uPlot), in the page's own colours, as wide as their place. */
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

/** `dots`: each value has one, so that lonely ones are seen. */
export type Line = { name: string; color: string; values: (number | null)[]; dots?: boolean };

/** `times` in Unix s, `color` the name of a CSS variable; `unit` says what a value is, like "4.2 /s". */
export default function Chart(props: {
  times: number[];
  lines: Line[];
  unit: (value: number) => string;
  height: number;
  label: string;
}) {
  const { times, lines, unit, height, label } = props;
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const shape = lines.map((it) => `${it.name}:${it.color}`).join();

  // biome-ignore lint/correctness/useExhaustiveDependencies: new data reach the same plot below
  useEffect(() => {
    const box = place.current;
    if (!box) return;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(box, lines, unit, height), data(times, lines), box);
      tellLast(plot.current);
    };
    const size = new ResizeObserver(() => plot.current?.setSize({ width: box.clientWidth, height }));
    const theme = new MutationObserver(draw);
    const system = matchMedia("(prefers-color-scheme: dark)");
    draw();
    size.observe(box);
    theme.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    system.addEventListener("change", draw);
    return () => {
      size.disconnect();
      theme.disconnect();
      system.removeEventListener("change", draw);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape, height, unit]);

  useEffect(() => {
    plot.current?.setData(data(times, lines));
    if (plot.current) tellLast(plot.current);
  }, [times, lines]);
  return <div className="chart" ref={place} role="img" aria-label={label} />;
}

const data = (times: number[], lines: Line[]): uPlot.AlignedData => [times, ...lines.map((it) => it.values)];

/** Where no moment is pointed at, the legend tells the last one. */
function tellLast(plot: uPlot) {
  if ((plot.cursor.left ?? -1) < 0) plot.setLegend({ idx: plot.data[0].length - 1 }, false);
}

const MINUTE_S = 60;
const DAY_S = 86_400;
const POWERS = Array.from({ length: 12 }, (_, n) => 10 ** (n - 2));
/** Steps of an axis that its labels can say without rounding. */
const STEPS = POWERS.flatMap((it) => [it, 2 * it, 5 * it]);

/** A moment as the steps of an axis are long: with the day at its beginning, with seconds where they count. */
function clock(at: number, step: number): string {
  const time = new Date(at * 1000);
  const hour = { hour: "2-digit", minute: "2-digit" } as const;
  if (step < MINUTE_S) return time.toLocaleTimeString("en-GB");
  const midnight = time.getHours() === 0 && time.getMinutes() === 0;
  if (step >= DAY_S || midnight) return time.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  return time.toLocaleTimeString("en-GB", hour);
}

function options(
  box: HTMLElement,
  lines: Line[],
  unit: (value: number) => string,
  height: number,
): uPlot.Options {
  const style = getComputedStyle(box);
  const color = (name: string) => resolved(box, `var(${name})`);
  const axis: uPlot.Axis = {
    stroke: color("--dim"),
    grid: { stroke: color("--line"), width: 1 },
    ticks: { show: false },
    font: `11px ${style.fontFamily}`,
  };
  return {
    width: Math.max(1, box.clientWidth),
    height,
    padding: [10, 28, 0, 0],
    cursor: { points: { size: 6 }, y: false },
    hooks: { setCursor: [tellLast] },
    legend: { markers: { width: 0, fill: (_, n) => color(lines[n - 1]?.color ?? "--dim") } },
    scales: { y: { range: (_, __, max) => [0, max ? max * 1.15 : 1] } },
    axes: [
      {
        ...axis,
        size: 30,
        grid: { show: false },
        values: (_, splits, __, ___, step) => splits.map((it) => clock(it, step)),
        space: 70,
      },
      { ...axis, size: 46, incrs: STEPS, values: (_, splits) => splits.map((it) => unit(it)) },
    ],
    series: [
      { value: (_, at) => (at === null ? "" : new Date(at * 1000).toLocaleTimeString("en-GB")) },
      ...lines.map((it) => ({
        label: it.name,
        stroke: color(it.color),
        fill: `color-mix(in srgb, ${color(it.color)} 10%, transparent)`,
        width: 1.75,
        points: { show: it.dots ?? false, size: 5, fill: color(it.color) },
        value: (_: uPlot, value: number | null) => (value === null ? "–" : unit(value)),
      })),
    ],
  };
}

/** What a CSS colour comes to here: a canvas knows no variables. */
function resolved(box: HTMLElement, value: string): string {
  const probe = document.createElement("i");
  probe.style.color = value;
  box.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}
