/** The icons, drawn on 16 by 16 with lines of 1.5. */
const PATHS = {
  overview: "M2.5 2.5h4.5v5h-4.5zM9 2.5h4.5v3H9zM9 8h4.5v5.5H9zM2.5 10H7v3.5H2.5z",
  jobs: "M2.5 4h11M2.5 8h11M2.5 12h7",
  failures: "M8 2 14.5 13.5h-13zM8 6.5v3M8 11.6v.1",
  workers: "M3 3h10v4H3zM3 9h10v4H3zM5.3 5h.1M5.3 11h.1",
  schedules: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM8 4.8V8l2.2 1.6",
  flows: "M2.5 6h3.5v4H2.5zM10 2.5h3.5v3.5H10zM10 10h3.5v3.5H10zM6 8h2M10 4.2H8v7.6h2",
  travel: "M2.5 8a5.5 5.5 0 1 0 1.8-4.1M2.5 2.8v2.7h2.7M8 5v3.2l2 1.4",
  submit: "M8 3v10M3 8h10",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.4 10.4 13.5 13.5",
  filter: "M2.5 4h11M4.5 8h7M6.5 12h3",
  theme: "M8 2.5a5.5 5.5 0 1 0 0 11zM8 2.5a5.5 5.5 0 0 1 0 11",
  leave: "M6 2.5H3v11h3M7 8h6.5M10.8 5.2 13.5 8l-2.7 2.8",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  play: "M5 3.2v9.6L12.5 8z",
  retry: "M13 8a5 5 0 1 1-1.6-3.7M13 2.5v3h-3",
  cancel: "M4 4l8 8M12 4l-8 8",
  edit: "M3 13l.6-3L10.5 3l2.5 2.5-7 7zM9 4.5 11.5 7",
  copy: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3",
  back: "M9.5 3.5 5 8l4.5 4.5",
  check: "M3 8.5 6.5 12 13 4.5",
  help: "M5.8 6a2.2 2.2 0 1 1 3.2 2c-.7.4-1 .8-1 1.6M8 12.3v.1",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg className="icon" viewBox="0 0 16 16" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
