import { expect, test } from "vitest";
import { filterOf, forMany, isListed, isoTime, localTime, minutesAgo, said } from "../lib/filter";

const of = (query: string) => filterOf(new URLSearchParams(query));

test("the address says which jobs are asked for, and what it does not know counts for nothing", () => {
  expect(said(of("queue=mail&tag=vip&other=1&from="))).toEqual({ queue: "mail", tag: "vip" });
  expect(said(of(""))).toEqual({});
});

test("what a row knows is listed, and all else is searched for", () => {
  expect(isListed(of("queue=mail&state=failed&type=mail.send"))).toBe(true);
  for (const query of ["tag=a", "worker=a", "error=a", "text=a", "origin=a", "from=1", "to=1"])
    expect(isListed(of(`state=failed&${query}`))).toBe(false);
});

test("nothing is done to more jobs than are shown", () => {
  expect(forMany(of("state=failed&tag=vip&from=2026-11-24T09:00Z&error=No"))).toEqual({
    state: "failed",
    tag: "vip",
    error: "No",
    since: "2026-11-24T09:00Z",
  });
  for (const query of ["worker=a", "text=a", "origin=a"])
    expect(forMany(of(`state=failed&${query}`))).toBeNull();
});

test("a moment is shown by the reader's clock and kept in UTC", () => {
  const kept = "2026-11-24T09:05Z";
  expect(isoTime(localTime(kept))).toBe(kept);
  expect(localTime("2026-11-24T09:05:07.250Z", true)).toMatch(/T\d\d:05:07$/);
  expect(localTime("yesterday")).toBe("");
  expect(isoTime("")).toBe("");
  expect(minutesAgo(15, Date.parse("2026-11-24T09:05:59Z"))).toBe("2026-11-24T08:50Z");
});
