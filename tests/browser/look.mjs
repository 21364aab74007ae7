/** Pictures of each page of a dashboard: light, dark, and on a phone.
 *
 *     node tests/browser/look.mjs [folder]                           of a scene played for it, PLAY_S seconds
 *     node tests/browser/look.mjs http://127.0.0.1:3000 [folder]     of a dashboard that runs
 *
 * (make screenshots). Says what the browser complained about, and ends with 1 if it did.
 */
import { mkdir } from "node:fs/promises";
import { chromium, findings } from "./browser.mjs";
import { ENVIRON, play } from "./scene.mjs";
import { start } from "./stack.mjs";

const words = process.argv.slice(2);
const given = words[0]?.startsWith("http") ? words.shift() : null;
const [folder = "build/screenshots"] = words;
const PLAY_S = Number(process.env.PLAY_S ?? 150);
const LOOKS = [
  { name: "light", colorScheme: "light", viewport: { width: 1360, height: 860 } },
  { name: "dark", colorScheme: "dark", viewport: { width: 1360, height: 860 } },
  { name: "phone", colorScheme: "light", viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 },
];

const stack = given ? null : await start(ENVIRON);
const url = given ?? stack.url;
const browser = await chromium();
const bad = [];
try {
  await look();
} finally {
  await browser.close();
  await stack?.stop();
}
console.log(bad.length ? bad.join("\n") : `All pages are in ${folder}; nothing to complain about.`);
process.exitCode = bad.length ? 1 : 0;

async function look() {
  await mkdir(folder, { recursive: true });
  const pages = await Promise.all(LOOKS.map(open));
  // The pages look on meanwhile, so that their charts have something to show.
  const end = stack && (await play(stack, PLAY_S));
  const paths = Object.entries(await places(pages[0]));
  for (const [n, page] of pages.entries()) {
    for (const [title, path] of paths) await picture(page, LOOKS[n].name, title, path);
  }
  await end?.();
}

async function open({ name, ...look }) {
  const page = await (await browser.newContext(look)).newPage();
  page.on("console", (it) => it.type() === "error" && bad.push(`${name}: ${it.text()} ${it.location().url}`));
  page.on("pageerror", (error) => bad.push(`${name}: ${error}`));
  await page.goto(`${url}/`);
  return page;
}

/** Go there as a reader does, so that what the page has heard stays. */
async function picture(page, name, title, path) {
  await page.evaluate((path) => {
    window.history.pushState(null, "", path);
    window.dispatchEvent(new PopStateEvent("popstate"));
    window.scrollTo(0, 0);
  }, path);
  await page.locator("main h1").waitFor();
  await page.waitForFunction(() => !document.querySelector(".loading, .chart-room"));
  await page.waitForFunction(() =>
    [...document.images].every((it) => it.complete || it.getBoundingClientRect().top > window.innerHeight),
  );
  await page.screenshot({ path: `${folder}/${title}-${name}.png` });
  bad.push(...(await findings(page)).map((it) => `${title} ${name}: ${it}`));
}

/** All pages, with a job and a flow to look at where there is one. */
async function places(page) {
  const get = async (path) => (await page.request.get(`${url}/app${path}`)).json();
  await get("/session");
  const { queues } = await get("/api/queues");
  const jobs = {};
  for (const { queue } of queues) {
    for (const state of ["completed", "failed"]) {
      const [job] = (await get(`/api/jobs/${queue}?state=${state}&limit=1`)).jobs;
      if (job) jobs[`job-${queue}-${state}`] = `/jobs/${queue}/${job.id}`;
    }
  }
  const { flows } = await get("/api/flows?limit=20");
  const size = ({ counts }) => Object.values(counts).reduce((sum, it) => sum + it, 0);
  const [flow] = flows.toSorted((a, b) => size(b) - size(a));
  const all = ["jobs", "failures", "workers", "schedules", "flows", "travel", "submit"];
  return {
    overview: "/",
    "jobs-failed": "/jobs?state=failed",
    ...Object.fromEntries(all.map((it) => [it, `/${it}`])),
    ...jobs,
    ...(flow && { flow: `/flows/${flow.id}` }),
  };
}
