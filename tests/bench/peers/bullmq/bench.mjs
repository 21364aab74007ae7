// BullMQ as the bench asks for it; see ../../program.py for the command line and the rules.
//
// Defaults of BullMQ throughout: what is kept of a finished job is its last state. It has no
// timeout of a job, so none is armed. Of 50, 100, 200 and 400 jobs at a time, 100 was the fastest.

import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Queue, Worker } from "bullmq";

const BATCH = 100;
const CONCURRENCY = 100;
const FILLER = "x".repeat(200 - '{"filler":""}'.length);

const connection = {
  path: process.env.BENCH_URL.replace("unix://", ""),
  maxRetriesPerRequest: null,
};
const now = () => Number(process.hrtime.bigint());

async function handle(job) {
  if (job.name !== "clock") return;
  const latency = now() - job.data.submitted;
  appendFileSync(
    join(process.env.BENCH_DIR, `${process.pid}.clock`),
    `${job.data.number} ${latency}\n`,
  );
}

const noop = () => ({ name: "noop", data: { filler: FILLER } });
const clock = (number) => ({
  name: "clock",
  data: { number, submitted: now(), filler: FILLER },
});

async function submit(queue, size) {
  if (size > 1) return queue.addBulk(Array.from({ length: size }, noop));
  const job = noop();
  return queue.add(job.name, job.data);
}

async function submitAll(queue, count, size) {
  const first = Math.min(size, count);
  await submit(queue, first);
  const began = performance.now();
  for (let done = first; done < count; done += size) {
    await submit(queue, Math.min(size, count - done));
  }
  console.log(((count - first) * 1000) / (performance.now() - began));
}

async function greet(queue, count) {
  await queue.addBulk(Array.from({ length: count }, () => clock(-1)));
}

async function clocks(queue, count) {
  for (let number = 0; number < count; number++) {
    await sleep(5 + 10 * Math.random());
    const job = clock(number);
    await queue.add(job.name, job.data);
  }
}

const verbs = {
  bulk: (queue, count) => submitAll(queue, count, BATCH),
  single: (queue, count) => submitAll(queue, count, 1),
  greet,
  clock: clocks,
};
const [verb, count] = [process.argv[2], Number(process.argv[3])];

if (verb === "work") {
  new Worker("bench", handle, { connection, concurrency: CONCURRENCY });
} else {
  const queue = new Queue("bench", { connection });
  await queue.waitUntilReady();
  await verbs[verb](queue, count);
  await queue.close();
}
