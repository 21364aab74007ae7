import { expect, test } from "vitest";
import type { Job } from "../api/types";
import { grouped, histogram, normalised, sharedWords } from "../lib/failures";
import { ago, bytes, duration, rate } from "../lib/format";
import { layers } from "../lib/layers";
import { jobTypes, payloadOf } from "../lib/schema";
import { asCurl, asPython } from "../lib/snippets";
import { inTurns } from "../lib/turns";

test.each([
  [0, "0 ms"],
  [0.4, "<1 ms"],
  [4.234, "4.2 ms"],
  [263.4, "263 ms"],
  [1_234, "1.23 s"],
  [59_900, "59.9 s"],
  [320_000, "5 m 20 s"],
  [3_600_000, "1 h"],
  [90_000_000, "1 d 1 h"],
  [null, "–"],
])("%s ms is %s", (ms, told) => expect(duration(ms)).toBe(told));

test("how long ago, rates and sizes", () => {
  expect(ago("2026-01-01T00:00:00Z", Date.parse("2026-01-01T00:02:10Z"))).toBe("2 m ago");
  expect(ago("2026-01-01T01:00:00Z", Date.parse("2026-01-01T00:00:00Z"))).toBe("in 1 h");
  expect([0, 0.02, 3.21, 1234.5].map(rate)).toEqual(["0", "0.02", "3.2", "1,235"]);
  expect([0, 512, 6_903, 312_229_888].map(bytes)).toEqual(["0 B", "512 B", "6.9 KB", "312 MB"]);
});

test("messages that differ in particulars only are of one kind", () => {
  const same = (a: string, b: string) => expect(normalised(a)).toBe(normalised(b));
  same("timed out after 12.5 s", "timed out after 7 s");
  same("no artifact sha256-00ff00ff00", "no artifact sha256-abcdef0123");
  same("GET https://a.example/x?1 said 404", "GET https://b.example/y said 500");
  same("mailbox ada@example.org is full", "mailbox bob@example.com is full");
  expect(normalised("disk is full")).not.toBe(normalised("disk is slow"));
  expect(sharedWords("no artifact sha256-00ff00ff00 in store 7")).toBe("no artifact");
});

test("failed jobs are grouped by queue, type, error and kind of message, the greatest first", () => {
  const job = (id: number, message: string) =>
    ({
      id: `q.0.${id}-0`,
      queue: "q",
      type: "t",
      finished_at: new Date(id).toISOString(),
      error: { error: "E", message, reason: "", traceback: "" },
    }) as Job;
  const groups = grouped([job(3, "late by 3"), job(9, "broken"), job(5, "late by 5"), job(1, "late by 1")]);
  expect(groups.map((it) => [it.message, it.jobs.length])).toEqual([
    ["late by 5", 3],
    ["broken", 1],
  ]);
  expect([groups[0]?.first, groups[0]?.last].map((it) => Date.parse(it ?? ""))).toEqual([1, 5]);
  expect(histogram([0, 1, 10], 0, 10, 2)).toEqual([2, 1]);
});

test("a shell and Python read the snippets as they were meant", () => {
  const job = {
    queue: "email",
    type: "email.send",
    payload: { text: "it's", ok: true, none: null },
    tags: ["a"],
  };
  expect(asCurl(job, "http://h:3001")).toContain(`"text": "it'\\''s"`);
  expect(asCurl(job, "http://h:3001")).toContain("curl http://h:3001/jobs/email \\");
  const python = asPython(job, "http://h:3001");
  expect(python).toContain('"ok": True,');
  expect(python).toContain('"none": None,');
  expect(python).toContain('"tags": [\n');
});

test("a form from a contract, and the payload that it makes", () => {
  const [type] = jobTypes({
    components: {
      schemas: {
        "job.image.resize": {
          description: "Resize. Queue `pictures`.",
          properties: { payload: { $ref: "#/components/schemas/payload.Resize" } },
        },
        "payload.Resize": {
          required: ["source"],
          properties: {
            source: { type: "string", maxLength: 100 },
            width: { anyOf: [{ type: "integer", minimum: 1 }, { type: "null" }], default: null },
            format: { enum: ["png", "jpeg"] },
            strip: { type: "boolean" },
            sizes: { type: "array" },
          },
        },
      },
    },
  });
  expect([type?.type, type?.queue, type?.about]).toEqual(["image.resize", "pictures", "Resize."]);
  const fields = type?.fields ?? [];
  expect(fields.map((it) => [it.name, it.kind, it.required])).toEqual([
    ["source", "text", true],
    ["width", "number", false],
    ["format", "choice", false],
    ["strip", "switch", false],
    ["sizes", "json", false],
  ]);
  const typed = { source: "a", width: "12", strip: "true", sizes: "[1]", format: "" };
  expect(payloadOf(fields, typed)).toEqual({ source: "a", width: 12, strip: true, sizes: [1] });
  expect(() => payloadOf(fields, { sizes: "[" })).toThrow("sizes is no JSON");
});

test("each node stands behind all it waits for", () => {
  const nodes = [{ name: "a" }, { name: "b" }, { name: "c", after: ["a"] }, { name: "d", after: ["b", "c"] }];
  expect(layers(nodes).map((it) => it.map((node) => node.name))).toEqual([["a", "b"], ["c"], ["d"]]);
});

test("in turns: never more at once than asked for, and answers in their order", async () => {
  let running = 0;
  let most = 0;
  const answers = await inTurns([5, 4, 3, 2, 1], 2, async (ms) => {
    running += 1;
    most = Math.max(most, running);
    await new Promise((done) => setTimeout(done, ms));
    running -= 1;
    return ms * 10;
  });
  expect(answers).toEqual([50, 40, 30, 20, 10]);
  expect(most).toBe(2);
});
