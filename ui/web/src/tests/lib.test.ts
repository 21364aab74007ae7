import { expect, test } from "vitest";
import { sharedWords } from "../lib/failures";
import { ago, bytes, duration, rate } from "../lib/format";
import { layers } from "../lib/layers";
import { jobTypes, payloadOf } from "../lib/schema";
import { endings, perSecond, worst } from "../lib/series";
import { asCurl, asPython } from "../lib/snippets";

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
  expect([0, 0.001, 0.02, 3.21, 3, 1234.5].map(rate)).toEqual(["0", "<0.01", "0.02", "3.2", "3", "1,235"]);
  expect([0, 512, 6_903, 312_229_888].map(bytes)).toEqual(["0 B", "512 B", "6.9 KB", "312 MB"]);
});

test("the words that all failures of a kind share", () => {
  expect(sharedWords("Permanent", "no artifact <id> in store #")).toBe("Permanent: no artifact");
  expect(sharedWords("E", "# is not the answer to '…'")).toBe("is not the answer to");
  expect(sharedWords("Timeout", "")).toBe("Timeout:");
});

test("a shell and Python read the snippets as they were meant", () => {
  const job = {
    queue: "email",
    type: "email.send",
    payload: { text: "it's", ok: true, none: null },
    tags: ["a"],
  };
  const open = { url: "http://h:3001", key: false };
  const guarded = { ...open, key: true };
  expect(asCurl(job, open)).toContain(`"text": "it'\\''s"`);
  expect(asCurl(job, open)).toContain("curl http://h:3001/jobs/email \\");
  expect(asCurl(job, guarded)).toContain('-H "Authorization: Bearer $PENSTOCK_API_KEY" \\');
  expect(asPython(job, guarded)).toContain("os.environ['PENSTOCK_API_KEY']");
  const python = asPython(job, open);
  expect(asCurl(job, open) + python).not.toMatch(/Authorization|environ/);
  expect(python).toContain('"ok": True,');
  expect(python).toContain('"none": None,');
  expect(python).toContain('"tags": [\n            "a",\n        ],');
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

test("the series of several queues as one", () => {
  const series = (at: number[], completed: number[], p95: (number | null)[]) => {
    const none = { p50: [], p95, p99: [] };
    const rest = { submitted: [], started: [], failed: [], wait_ms: none, run_ms: none };
    return { queue: "q", step_s: 60, at, completed, ...rest };
  };
  const all = [series([0, 60_000], [60, 120], [5, null]), series([60_000, 120_000], [60, 0], [7, null])];
  expect(perSecond(all, "completed", 180_000)).toEqual({ times: [0, 60, 120], values: [1, 3, 0] });
  expect(perSecond(all, "completed", 90_000).values).toEqual([1, 6, null]);
  expect(worst(all, "wait_ms").values).toEqual([5, 7, null]);
});

test("what ended when, as parts of a span: cut off at its ends, without the steps in which nothing did", () => {
  const none = { p50: [], p95: [], p99: [] };
  const series = (completed: number[], failed: number[]) => ({
    ...{ queue: "q", step_s: 60, at: [0, 60_000, 120_000], submitted: [], started: [] },
    ...{ completed, failed, wait_ms: none, run_ms: none },
  });
  const all = [series([1, 0, 5], [0, 0, 1]), series([2, 0, 2], [1, 0, 0])];
  expect(endings(all, 30_000, 130_000)).toEqual([
    { x: 0, width: 0.3, completed: 3 / 8, failed: 1 / 8 },
    { x: 0.9, width: 0.1, completed: 7 / 8, failed: 1 / 8 },
  ]);
  expect(endings([], 0, 1)).toEqual([]);
});
