/** A flow's nodes in columns: each behind all that it waits for. */
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
