/** Numbers, durations and moments as people read them. */

const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (value: number) => (value < 100_000 ? whole.format(value) : compact.format(value));

/** Per second. */
export function rate(value: number): string {
  if (value === 0) return "0";
  if (value < 0.01) return "<0.01";
  if (value < 1) return String(Number(value.toFixed(2)));
  return value < 10 ? String(Number(value.toFixed(1))) : count(Math.round(value));
}

/** A duration in ms, in two figures of the greatest units that say it: 4.2 ms, 1.3 s, 5 m 20 s. */
export function duration(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1) return ms === 0 ? "0 ms" : "<1 ms";
  if (ms < 1000) return `${ms < 10 ? Number(ms.toFixed(1)) : Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 60) return `${Number(s.toFixed(s < 10 ? 2 : 1))} s`;
  const units = [
    [86_400, "d"],
    [3_600, "h"],
    [60, "m"],
    [1, "s"],
  ] as const;
  const first = units.findIndex(([size]) => s >= size);
  const [size, unit] = units[first] ?? units[3];
  const [smaller, name] = units[first + 1] ?? [1, ""];
  const rest = Math.floor((s % size) / smaller);
  return `${Math.floor(s / size)} ${unit}${rest && name ? ` ${rest} ${name}` : ""}`;
}

/** How long before (or after) `now`: "12 s ago", "in 3 m". */
export function ago(at: string, now = Date.now()): string {
  const ms = now - Date.parse(at);
  if (Math.abs(ms) < 1500) return "now";
  const s = Math.abs(ms) / 1000;
  const [size, unit] =
    s < 60 ? [1, "s"] : s < 3600 ? [60, "m"] : s < 86_400 ? [3600, "h"] : ([86_400, "d"] as const);
  const told = `${Math.round(s / size)} ${unit}`;
  return ms > 0 ? `${told} ago` : `in ${told}`;
}

const clockOf = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
});
const dayOf = new Intl.DateTimeFormat("en-GB", { day: "2-digit", month: "short" });

/** The time of day with ms; with the day where that is not today. */
export function moment(at: string | number, now = Date.now()): string {
  const time = new Date(at);
  const clock = clockOf.format(time);
  return time.toDateString() === new Date(now).toDateString() ? clock : `${dayOf.format(time)} ${clock}`;
}

export function bytes(size: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, size < 1 ? 0 : Math.floor(Math.log10(size) / 3));
  const value = size / 1000 ** power;
  return `${power && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}
