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

  useEffect(() => plot.current?.setData(data(times, lines)), [times, lines]);
  return <div className="chart" ref={place} role="img" aria-label={label} />;
}

const data = (times: number[], lines: Line[]): uPlot.AlignedData => [times, ...lines.map((it) => it.values)];

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
    padding: [10, 4, 0, 0],
    cursor: { points: { size: 6 }, y: false },
    legend: { markers: { width: 0, fill: (_, n) => color(lines[n - 1]?.color ?? "--dim") } },
    scales: { y: { range: (_, __, max) => [0, Math.max(1, (max ?? 0) * 1.15)] } },
    axes: [
      {
        ...axis,
        size: 30,
        grid: { show: false },
        values: (_, splits) => splits.map((it) => new Date(it * 1000).toLocaleTimeString("en-GB")),
        space: 90,
      },
      { ...axis, size: 46, values: (_, splits) => splits.map((it) => unit(it)) },
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
