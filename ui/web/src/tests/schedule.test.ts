import { expect, test } from "vitest";
import type { Schedule } from "../api/types";
import { blank, draftOf, requestOf, tickIn } from "../lib/schedule";
import { type Field, typedOf } from "../lib/schema";

const SET: Schedule = {
  ...{ name: "nightly", queue: "ai", overlap: "queue", catch_up: "all", paused: false, next: [] },
  ...{ set_at: "2026-01-01T00:00:00.000Z", set_by: "local", cron: "0 3 * * *", tz: "Europe/Berlin" },
  ...{ start: "2026-01-02T00:00:00.123Z", jitter: 5, window: 3600, limit: 7 },
  job: { type: "ai.language", payload: { text: "a" }, attempts: 3, group: "g", tags: ["x", "y"] },
};

test("a schedule that is changed keeps what was not touched", () => {
  expect(requestOf(draftOf(SET), SET.job.payload)).toEqual({
    job: { type: "ai.language", payload: { text: "a" }, attempts: 3, group: "g", tags: ["x", "y"] },
    ...{ cron: "0 3 * * *", tz: "Europe/Berlin", overlap: "queue", catch_up: "all" },
    ...{ start: "2026-01-02T00:00:00.123Z", jitter: 5, window: 3600, limit: 7 },
  });
});

test("another rhythm takes the place of the first", () => {
  const asked = requestOf({ ...draftOf(SET), rhythm: "every", every: "30", start: "" }, {});
  expect(asked).toMatchObject({ every: 30, jitter: 5 });
  expect(asked).not.toHaveProperty("cron");
  expect(asked).not.toHaveProperty("start");
});

test("a new one asks for what is usual", () => {
  expect(requestOf(blank("ai.language", "UTC"), { text: "a" })).toEqual({
    job: { type: "ai.language", payload: { text: "a" } },
    ...{ cron: "0 3 * * *", tz: "UTC", overlap: "skip", catch_up: "last" },
  });
});

test("a tick in its zone; a zone that is no zone is not asked for", () => {
  expect(tickIn("2026-07-01T01:00:05Z", "Europe/Berlin")).toMatch(/^Wed,? 01 Jul, 03:00$/);
  expect(tickIn("2026-07-01T01:00:05Z", "Asia/Kolkata", true)).toMatch(/^Wed,? 01 Jul, 06:30:05$/);
  expect(tickIn("2026-07-01T01:00:05Z", "Euro")).toContain("Jul");
});

test("a payload is typed into the fields that hold it, or into none", () => {
  const field = (name: string, kind: Field["kind"]) => ({ name, kind }) as Field;
  const fields = [field("text", "text"), field("many", "number"), field("list", "json")];
  expect(typedOf(fields, { text: "a", many: 2, list: [1] })).toEqual({ text: "a", many: "2", list: "[1]" });
  expect(typedOf(fields, { text: "a", other: 1 })).toBeNull();
  expect(typedOf(fields, "a")).toBeNull();
});
