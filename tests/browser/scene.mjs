/** A shop's day in a few minutes: jobs that complete, fail, wait and run again, schedules and flows, for
 * pictures of a dashboard in use. On a stack that was started with ENVIRON; with workers
 * beside its own. */
import { readFile } from "node:fs/promises";

const HERE = new URL("./", import.meta.url).pathname;
const ROOT = new URL("../../", import.meta.url).pathname;
const PHOTO = new URL("../../ui/static/demo/hubble-deep-field.jpg", import.meta.url);

export const ENVIRON = { PENSTOCK_JOBS: "scene_jobs", PYTHONPATH: `${ROOT}infra/src:${HERE}` };

const TICK_MS = 200;
const SENTENCES = [
  "Wo bleibt meine Bestellung?",
  "Le colis est arrivé hier, merci beaucoup.",
  "The lamp arrived broken, can I send it back?",
  "¿Cuándo llega mi pedido?",
  "Het formaat is te klein, kan ik ruilen?",
];
const SCHEDULES = {
  "nightly-export": { cron: "30 2 * * *", tz: "Europe/Berlin", job: { type: "orders.export", payload: { day: "yesterday" } } },
  "hourly-report": { cron: "0 * * * *", job: { type: "reports.build", payload: { name: "the last hour" }, tags: ["report"] } },
  "index-refresh": { every: 20, overlap: "queue", job: { type: "search.index", payload: { product: 1, fields: ["price"] } } },
  "weekly-digest": {
    cron: "0 8 * * 1",
    tz: "Europe/Paris",
    catch_up: "all",
    job: { type: "email.send", payload: { to: ["someone@example.com"], subject: "Your week", text: "All is well." } },
  },
};

/** Fill it for `seconds`; answers a function that ends what goes on. */
export async function play(stack, seconds) {
  const send = sender(stack.api);
  const workers = ["search,orders", "reports,orders"].map((queues) => stack.also("worker", "--queues", queues));
  await prepare(send, await photo(stack.api));
  let over = false;
  const traffic = (async () => {
    for (let n = 0; !over; n += 1) {
      await tick(send, n);
      await new Promise((done) => setTimeout(done, TICK_MS));
    }
  })();
  await Promise.race([traffic, new Promise((done) => setTimeout(done, seconds * 1000))]);
  return async () => {
    over = true;
    await traffic;
    await Promise.all(workers.map((it) => it.end()));
  };
}

/** What stands there from the beginning. */
async function prepare(send, picture) {
  for (const [name, schedule] of Object.entries(SCHEDULES)) await send("PUT", `/schedules/${name}`, schedule);
  await send("POST", "/schedules/weekly-digest/pause");
  await send("PUT", "/queues/reports/limits", { concurrency: 4 });
  const mail = (it) => ({ to: ["someone@example.com"], subject: it, text: "Thank you for your order." });
  await send("POST", "/jobs/email/batch", [
    ...["Your order is on its way", "Your invoice", "How was it?"].map((it) => ({ type: "email.send", payload: mail(it), tags: ["order"] })),
    { type: "email.send", payload: { to: ["someone@example.com"], template: "welcome", data: { name: "you" } } },
    { type: "email.send", payload: { ...mail("Thank you"), text: "", html: "<h1>Thank you</h1><p>Your order <b>A-1001</b> is being packed.</p>" } },
    ...Array.from({ length: 6 }, (_, n) => ({ type: "email.send", delay: 1800 * (n + 1), payload: mail("A reminder"), tags: ["reminder"] })),
  ]);
  const sizes = [160, 400, 800].map((width) => ({ name: `w${width}`, width }));
  await send("POST", "/jobs/image", { type: "image.thumbnails", payload: { source: picture, sizes } });
  const gone = { type: "image.resize", payload: { source: `sha256-${"0".repeat(64)}`, width: 400 }, attempts: 1 };
  await send("POST", "/jobs/image/batch", Array.from({ length: 4 }, () => gone));
  const part = (name, after = [], pace = 4) => ({ name, type: "reports.build", payload: { name, pace }, after });
  const nodes = [part("orders"), part("refunds", [], 8), part("stock", ["orders"], 30), part("finance", ["orders", "refunds"], 20)];
  nodes.push({ name: "publish", type: "reports.publish", payload: { to: "the intranet" }, after: ["stock", "finance"] });
  await send("POST", "/flows", { name: "monthly report", nodes });
  const quick = [part("orders", [], 0.2), part("stock", ["orders"], 0.2)];
  await send("POST", "/flows", { name: "weekly report", nodes: quick });
}

/** A fifth of a second of traffic, which comes in waves. */
async function tick(send, n) {
  const wave = 1 + Math.sin(n / 40) / 2 + Math.random() / 4;
  const order = () => `A-${1000 + Math.floor(Math.random() * 9000)}`;
  const many = (count, make) => Array.from({ length: Math.round(count * wave) }, make);
  await send("POST", "/jobs/search/batch", many(9, () => ({ type: "search.index", payload: { product: Math.floor(Math.random() * 5000) } })));
  await send("POST", "/jobs/orders/batch", many(2, () => ({ type: "orders.charge", payload: { order: order(), cents: 990 + n }, tags: ["web"] })));
  if (n % 5 === 0) await send("POST", "/jobs/ai", { type: "ai.language", payload: { text: SENTENCES[n % SENTENCES.length] } });
  if (n % 40 === 7) await send("POST", "/jobs/orders", { type: "orders.export", payload: { day: "2026-11-23" } });
  if (n % 25 === 11) await send("POST", "/jobs/reports", { type: "reports.build", payload: { name: "stock", pace: 3 }, tags: ["stock"] });
}

function sender(api) {
  return async (method, path, body) => {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(api + path, { method, headers, ...(body && { body: JSON.stringify(body) }) });
    const told = await answer.json();
    const refused = told.items?.filter((it) => it.status >= 400) ?? [];
    if (!answer.ok || refused.length > 0) throw new Error(`${method} ${path}: ${JSON.stringify(refused[0] ?? told)}`);
    return told;
  };
}

async function photo(api) {
  const headers = { "Content-Type": "image/jpeg", "Content-Disposition": 'attachment; filename="hubble.jpg"' };
  const answer = await fetch(`${api}/artifacts`, { method: "POST", headers, body: await readFile(PHOTO) });
  return (await answer.json()).id;
}
