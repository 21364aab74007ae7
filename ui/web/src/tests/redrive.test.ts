import { expect, test } from "vitest";
import { mayRedrive } from "../lib/filter";
import {
  byProblem,
  copies,
  inShort,
  nameFor,
  offered,
  orderOf,
  readPatch,
  readRate,
  unknownIn,
  withField,
} from "../lib/redrive";
import { jobTypes } from "../lib/schema";

const FIELDS = jobTypes({
  components: {
    schemas: {
      "job.mail.send": {
        properties: {
          payload: {
            properties: {
              to: { type: "array" },
              subject: { type: "string" },
              tries: { type: "integer", default: 3 },
              html: { type: "boolean" },
            },
          },
        },
      },
    },
  },
})[0]?.fields;
if (!FIELDS) throw new Error("no such type");

test("ended jobs are submitted again, and no operations", () => {
  for (const state of ["failed", "completed", "cancelled"]) expect(mayRedrive({ state })).toBe(true);
  for (const state of ["waiting", "delayed", "active"]) expect(mayRedrive({ state })).toBe(false);
  expect(mayRedrive({ queue: "mail" })).toBe(false);
  expect(mayRedrive({ queue: "penstock", state: "failed" })).toBe(false);
});

test("a patch is an object, and what is wrong with another one is said", () => {
  expect(readPatch("  ")).toEqual({ patch: {} });
  expect(readPatch('{"a": null, "b": {"c": [1.5, -2]}}')).toEqual({
    patch: { a: null, b: { c: [1.5, -2] } },
  });
  for (const text of ["[1]", "null", "1", '"a"'])
    expect(readPatch(text)).toEqual({ wrong: expect.stringContaining("object") });
  for (const text of ["{", "{a: 1}", "{'a': 1}", '{"a": 1,}'])
    expect(readPatch(text)).toEqual({ wrong: expect.stringContaining("No JSON yet") });
});

test("a number that a browser would change is refused, and not sent as another one", () => {
  for (const text of ['{"a": 9007199254740993}', '{"a": [-90071992547409931]}'])
    expect(readPatch(text)).toEqual({ wrong: expect.stringMatching(/^-?9007199254740993.* digits/) });
  for (const text of [
    '{"a": 9007199254740991}',
    '{"a": "9007199254740993"}',
    '{"9007199254740993": "\\" 9007199254740993"}',
    '{"a": 0.90071992547409931}',
    '{"a": 1e22}',
    '{"a": -1.5e-20}',
  ])
    expect(readPatch(text), text).toHaveProperty("patch");
});

test.each([
  ["", 0],
  [" 0 ", 0],
  ["2.5", 2.5],
  ["100000", 100_000],
  ["100001", null],
  ["-1", null],
  ["fast", null],
  ["NaN", null],
])("%j jobs per second is %s", (text, rate) => expect(readRate(text)).toBe(rate));

test("an order holds what was typed, and nothing that was not", () => {
  const filter = { queue: "mail", state: "failed" };
  const nothing = { patch: "", rate: "", id: "", archived: false };
  expect(orderOf(nothing, filter)).toEqual({ filter });
  expect(orderOf({ ...nothing, patch: "{}", rate: "0", id: " " }, filter)).toEqual({ filter });
  const all = { patch: '{"a": null}', rate: "5", id: " again ", archived: true };
  const order = { filter, patch: { a: null }, rate: 5, id: "again", archived: true };
  expect(orderOf(all, filter)).toEqual(order);
  expect(orderOf({ ...nothing, patch: "{" }, filter)).toBeNull();
  expect(orderOf({ ...nothing, rate: "x" }, filter)).toBeNull();
});

test("a name says what is meant and when it was asked for", () => {
  const now = new Date(2026, 10, 24, 13, 5, 9);
  expect(nameFor({ queue: "mail", type: "mail.send", state: "failed" }, now)).toBe(
    "mail.send-failed-2026-11-24-130509",
  );
  expect(nameFor({ queue: "mail", state: "completed" }, now)).toBe("mail-completed-2026-11-24-130509");
  const long = nameFor({ type: "a".repeat(200), state: "failed" }, now);
  expect(long).toHaveLength(100);
  expect(long).toMatch(/a-failed-2026-11-24-130509$/);
});

test("fields to change come from a payload, then from the contract, with a value to begin from", () => {
  const payload = { subject: "Hello", text: "x".repeat(500), note: null };
  expect(offered(payload, FIELDS)).toEqual([
    ["subject", "Hello"],
    ["text", ""],
    ["note", null],
    ["to", []],
    ["tries", 3],
    ["html", false],
  ]);
  for (const hidden of [null, [1], "text", { sealed: true }, { sealed: true, problem: "no key" }])
    expect(offered(hidden, FIELDS).map(([name]) => name)).toEqual(["to", "subject", "tries", "html"]);
  expect(offered({ sealed: true, weight: 3 }, [])).toHaveLength(2);
});

test("a field goes into the patch, which is left alone where it cannot be read", () => {
  expect(withField("", "a", 1)).toBe('{\n  "a": 1\n}');
  expect(JSON.parse(withField('{"b": 2}', "a", 1))).toEqual({ a: 1, b: 2 });
  expect(JSON.parse(withField('{"a": 2}', "a", 1))).toEqual({ a: 2 });
  expect(withField('{"b":', "a", 1)).toBe('{"b":');
});

test("what the contract does not know is named", () => {
  expect(unknownIn({ subject: "a", sbject: "b", to: null }, FIELDS)).toEqual(["sbject"]);
  expect(unknownIn({ anything: 1 }, [])).toEqual([]);
});

test("values in a line, refusals by their reason", () => {
  expect(inShort({ a: [1, null] })).toBe('{"a":[1,null]}');
  expect(inShort("x".repeat(200))).toMatch(/^"x{99}…$/);
  const refused = ["1 a", "2 b", "3 b"].map((it) => ({ id: it[0] ?? "", problem: it[2] ?? "" }));
  expect(byProblem(refused)).toEqual([
    { problem: "b", ids: ["2", "3"] },
    { problem: "a", ids: ["1"] },
  ]);
});

test("the new jobs are those like the old ones since it began, whatever became of them", () => {
  const filter = { queue: "mail", type: "mail.send", state: "failed", tag: "a b", error: "No" };
  expect(copies(filter, "mail outage")).toBe("/jobs?queue=mail&origin=mail+outage");
});
