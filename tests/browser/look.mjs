/** Pictures of each page of a running dashboard: light, dark, and on a phone.
 *
 *     node tests/browser/look.mjs http://127.0.0.1:3000 [folder]     (make screenshots)
 *
 * Says what the browser complained about, and ends with 1 if it did.
 */
import { mkdir } from "node:fs/promises";
import { chromium, findings } from "./browser.mjs";

const [url = "http://127.0.0.1:3000", folder = "build/screenshots"] = process.argv.slice(2);
const LOOKS = [
  { name: "light", colorScheme: "light", viewport: { width: 1360, height: 860 } },
  { name: "dark", colorScheme: "dark", viewport: { width: 1360, height: 860 } },
  { name: "phone", colorScheme: "light", viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 },
];

const browser = await chromium();
const bad = [];
await mkdir(folder, { recursive: true });
for (const { name, ...look } of LOOKS) {
  const context = await browser.newContext(look);
  const page = await context.newPage();
  page.on("console", (message) => message.type() === "error" && bad.push(`${name}: ${message.text()}`));
  page.on("pageerror", (error) => bad.push(`${name}: ${error}`));
  for (const [title, path] of Object.entries(await places(context))) {
    await page.goto(url + path);
    await page.locator("main h1").waitFor();
    await page.waitForLoadState("load");
    await page.waitForFunction(() => !document.querySelector(".loading, .chart-room"));
    await page.waitForFunction(() => [...document.images].every((it) => it.complete || it.loading === "lazy"));
    await page.screenshot({ path: `${folder}/${title}-${name}.png` });
    bad.push(...(await findings(page)).map((it) => `${title} ${name}: ${it}`));
  }
  await context.close();
}
await browser.close();
console.log(bad.length ? bad.join("\n") : `All pages are in ${folder}; nothing to complain about.`);
process.exitCode = bad.length ? 1 : 0;

/** All pages, with a job and a flow to look at where there is one. */
async function places(context) {
  const get = async (path) => (await context.request.get(`${url}/app${path}`)).json();
  await get("/session");
  const { queues } = await get("/api/queues");
  const jobs = {};
  for (const { queue } of queues) {
    for (const state of ["completed", "failed"]) {
      const [job] = (await get(`/api/jobs/${queue}?state=${state}&limit=1`)).jobs;
      if (job) jobs[`job-${queue}-${state}`] = `/jobs/${queue}/${job.id}`;
    }
  }
  const [flow] = (await get("/api/flows?limit=1")).flows ?? [];
  const all = ["jobs", "failures", "workers", "schedules", "flows", "travel", "submit"];
  return {
    overview: "/",
    "jobs-failed": "/jobs?state=failed",
    ...Object.fromEntries(all.map((it) => [it, `/${it}`])),
    ...jobs,
    ...(flow && { flow: `/flows/${flow.id}` }),
  };
}
