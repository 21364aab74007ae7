/** A flow's nodes in columns: each behind all that it waits for. */
import type { FlowNode } from "../api/types";

export function layers<T extends { name: string; after?: string[] }>(nodes: T[]): T[][] {
  const depth = new Map<string, number>();
  const columns: T[][] = [];
  // The server gives each node behind those it waits for.
  for (const node of nodes) {
    const column = Math.max(-1, ...(node.after ?? []).map((it) => depth.get(it) ?? -1)) + 1;
    depth.set(node.name, column);
    columns[column] ??= [];
    columns[column].push(node);
  }
  return columns;
}

/** The node that a job does, what it waits for and what waits for it; null where no node is done by it. */
export function neighbours(nodes: FlowNode[], job: string) {
  const node = nodes.find((it) => it.job === job);
  if (!node) return null;
  const { name, after = [] } = node;
  return {
    node,
    before: nodes.filter((it) => after.includes(it.name)),
    behind: nodes.filter((it) => it.after?.includes(name)),
  };
}
