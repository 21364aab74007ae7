/** Do it for all, so many at once; answers in their order. The first failure ends it. */
export async function inTurns<T, R>(all: T[], atOnce: number, work: (one: T) => Promise<R>): Promise<R[]> {
  const answers: R[] = [];
  let next = 0;
  const worker = async () => {
    while (next < all.length) {
      const mine = next;
      next += 1;
      answers[mine] = await work(all[mine] as T);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, all.length) }, worker));
  return answers;
}
