/** The pages that one can go to from anywhere. */
import type { IconName } from "./parts/icons";

export const PLACES: { to: string; name: string; icon: IconName; key: string }[] = [
  { to: "/", name: "Overview", icon: "overview", key: "o" },
  { to: "/jobs", name: "Jobs", icon: "jobs", key: "j" },
  { to: "/failures", name: "Failures", icon: "failures", key: "f" },
  { to: "/workers", name: "Workers", icon: "workers", key: "w" },
  { to: "/schedules", name: "Schedules", icon: "schedules", key: "s" },
  { to: "/flows", name: "Flows", icon: "flows", key: "l" },
  { to: "/travel", name: "Travel", icon: "travel", key: "t" },
  { to: "/submit", name: "Submit", icon: "submit", key: "n" },
];
