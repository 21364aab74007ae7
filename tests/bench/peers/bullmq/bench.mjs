// BullMQ as the bench asks for it; see ../../program.py for the command line and the rules.
//
// Defaults of BullMQ throughout: what is kept of a finished job is its last state. It has no
// timeout of a job, so none is armed. 100 jobs at a time was the fastest concurrency found.

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

async function bulk(queue, count) {
  for (let start = 0; start < count; start += BATCH) {
    const size = Math.min(BATCH, count - start);
    await queue.addBulk(Array.from({ length: size }, noop));
  }
}

async function single(queue, count) {
  for (let number = 0; number < count; number++) {
    const job = noop();
    await queue.add(job.name, job.data);
  }
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

const verbs = { bulk, single, greet, clock: clocks };
const [verb, count] = [process.argv[2], Number(process.argv[3])];

if (verb === "work") {
  new Worker("bench", handle, { connection, concurrency: CONCURRENCY });
} else {
  const queue = new Queue("bench", { connection });
  await queue.waitUntilReady();
  const began = performance.now();
  await verbs[verb](queue, count);
  console.log((performance.now() - began) / 1000);
  await queue.close();
}
