/** The first minutes with a dashboard: the first job by a copied command, the figures, and schedules. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { after, before, test } from "node:test";
import { isDeepStrictEqual, promisify } from "node:util";
import { chromium, executable, findings } from "./browser.mjs";
import { eventually, start, together } from "./stack.mjs";

const skip = existsSync(executable) || process.env.CI === "true" ? false : `no ${executable}`;
const KEY = "key-of-the-test-0123456789abcdef0123456789";
const ENVIRON = {
  PENSTOCK_API_KEYS: `dashboard:${KEY}`,
  PENSTOCK_DASHBOARD_PASSWORD: "open sesame",
  PENSTOCK_DASHBOARD_READ_PASSWORD: "let me see",
};

let stack;
let browser;

before(async () => {
  if (skip) return;
  [stack, browser] = await together(start(ENVIRON), chromium());
});

after(async () => {
  await browser?.close();
  await stack?.stop();
});

async function open(path, password = "open sesame") {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(String(error)));
  await page.goto(stack.url + path);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.locator('.link-state[data-link="live"]').waitFor();
  return page;
}

const api = async (path) =>
  (await fetch(stack.api + path, { headers: { Authorization: `Bearer ${KEY}` } })).json();

test("the first job is submitted by the command that the empty page shows", { skip }, async () => {
  const page = await open("/");
  await page.locator("h1", { hasText: "Welcome" }).waitFor();
  assert.deepEqual(await findings(page), []);
  const command = await page.locator(".welcome pre").innerText();
  assert.ok(command.includes(`${stack.api}/jobs/ai`) && command.includes("$PENSTOCK_API_KEY"), command);
  assert.ok(!(await page.content()).includes(KEY));
  const shell = ["sh", ["-c", command], { env: { ...process.env, PENSTOCK_API_KEY: KEY } }];
  const { stdout } = await promisify(execFile)(...shell);
  assert.match(JSON.parse(stdout).id, /^ai\.0\./);
  await page.locator("h1", { hasText: "Overview" }).waitFor();
  await page.locator('tr:has(a[href="/jobs?queue=ai"]) [data-tone="completed"]', { hasText: "1" }).waitFor();
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test("what the overview says is what the API says", { skip }, async () => {
  const page = await open("/");
  await page.locator("table.queues").waitFor();
  const shown = async () => {
    const rows = await page.$$eval("table.queues tbody tr", (all) =>
      all.map((it) => [
        it.querySelector("th a").innerText,
        ...[...it.querySelectorAll("td[data-label] .count")].map((count) => Number(count.innerText)),
      ]),
    );
    const figures = await page.$$eval(".figure", (all) =>
      all.map((it) => [it.querySelector("dt").innerText, it.querySelector("dd").innerText]),
    );
    return { rows, figures: Object.fromEntries(figures) };
  };
  const told = async () => {
    const { queues } = await api("/queues");
    const sum = (of) => String(queues.reduce((total, it) => total + of(it), 0));
    return {
      rows: queues.map((it) => [it.queue, ...Object.values(it.counts)]),
      Waiting: sum((it) => it.counts.waiting),
      Running: sum((it) => it.counts.active),
      Failed: sum((it) => it.counts.failed),
      Workers: String((await api("/workers")).workers.length),
    };
  };
  await eventually(async () => {
    const { rows, figures } = await shown();
    return isDeepStrictEqual({ ...(await told()), ...figures, rows }, { ...figures, ...(await told()) });
  });
  await page.context().close();
});

test("a schedule is set, foretold, changed, run, paused and removed", { skip }, async () => {
  const page = await open("/schedules");
  const button = (name) => page.getByRole("button", { name, exact: true });
  await button("New schedule").click();
  await page.getByLabel("Cron").fill("0 25 * * *");
  await page.locator('label:has-text("Cron") [role="alert"]', { hasText: "hour" }).waitFor();
  await page.getByLabel("Cron").fill("30 2 * * *");
  await page.getByLabel("Time zone").fill("Europe/Berlin");
  await page.locator(".next-ticks b", { hasText: "02:30" }).first().waitFor();
  await page.getByLabel("Name").fill("nightly");
  await page.locator("label", { hasText: /^Job/ }).locator("select").selectOption("ai.language");
  await page.getByRole("textbox", { name: /^text/ }).fill("Gute Nacht.");
  assert.deepEqual(await findings(page), []);
  await button("Set").click();
  await page.locator(".schedule h2", { hasText: "nightly" }).waitFor();
  const set = await api("/schedules/nightly");
  assert.deepEqual([set.cron, set.tz, set.job.payload], ["30 2 * * *", "Europe/Berlin", { text: "Gute Nacht." }]);
  await button("Change").click();
  await button("every so often").click();
  await page.getByLabel("Every, in s").fill("86400");
  await page.locator(".next-ticks b").first().waitFor();
  await page.locator("dialog").getByRole("button", { name: "Change" }).click();
  await page.locator(".schedule", { hasText: "every 1 d" }).waitFor();
  assert.deepEqual((await api("/schedules/nightly")).job.payload, { text: "Gute Nacht." });
  await button("Run now").click();
  const link = page.locator('.schedule a[href^="/jobs/ai/"]');
  await link.waitFor();
  assert.deepEqual((await api(new URL(await link.getAttribute("href"), stack.api).pathname)).payload, { text: "Gute Nacht." });
  await button("Pause").click();
  await page.locator(".schedule .badge", { hasText: "paused" }).waitFor();
  await button("Remove nightly").click();
  await page.locator("dialog").getByRole("button", { name: "Remove", exact: true }).click();
  await page.locator(".empty").waitFor();
  assert.deepEqual((await api("/schedules")).schedules, []);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test("what the server refuses is said at its field, and who may only look can set nothing", { skip }, async () => {
  const page = await open("/schedules");
  await page.getByRole("button", { name: "New schedule" }).click();
  await page.getByLabel("Name").fill("shrink");
  await page.locator("label", { hasText: /^Job/ }).locator("select").selectOption("image.resize");
  await page.getByRole("textbox", { name: /^source/ }).fill("nonsense");
  await page.getByRole("button", { name: "Set", exact: true }).click();
  await page.locator('label:has-text("source") [role="alert"]').waitFor();
  await page.context().close();
  const reader = await open("/schedules", "let me see");
  await reader.locator(".empty").waitFor();
  assert.equal(await reader.getByRole("button", { name: /schedule/ }).count(), 0);
  await reader.context().close();
});
