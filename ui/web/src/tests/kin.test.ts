import { expect, test } from "vitest";
import type { FlowNode } from "../api/types";
import { sharedWords } from "../lib/failures";
import { neighbours } from "../lib/layers";

const node = (name: string, after: string[] = [], job = ""): FlowNode => ({
  name,
  type: "a.b",
  queue: "a",
  state: "waiting",
  after,
  ...(job && { job }),
});

test("of a flow, a job has what it waits for and what waits for it", () => {
  const nodes = [node("a"), node("b"), node("c", ["a", "b"], "a.0.1-1"), node("d", ["c"]), node("e", ["d"])];
  const near = neighbours(nodes, "a.0.1-1");
  expect(near?.before.map((it) => it.name)).toEqual(["a", "b"]);
  expect(near?.behind.map((it) => it.name)).toEqual(["d"]);
  expect(neighbours(nodes, "a.0.1-2")).toBeNull();
});

test("of a sealed message nothing is looked for", () => {
  expect(sharedWords("ValueError", "(sealed)")).toBe("ValueError:");
});
