/** The dashboard in Chromium, on the real stack: live, through crashes, with what one can do there. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, test } from "node:test";
import { chromium, executable, findings } from "./browser.mjs";
import { eventually, start, submit, together } from "./stack.mjs";

const skip = existsSync(executable) || process.env.CI === "true" ? false : `no ${executable}`;
const WRONG = { type: "image.resize", payload: { source: `sha256-${"0".repeat(64)}`, width: 9 }, attempts: 1 };
const MAIL = { to: ["ada@example.org"], subject: "Later", text: "Soon." };
const sentence = (text) => ({ type: "ai.language", payload: { text } });

const GUARDED = { PENSTOCK_DASHBOARD_PASSWORD: "open sesame", PENSTOCK_DASHBOARD_READ_PASSWORD: "let me see" };

let stack;
let guarded;
let browser;

before(async () => {
  if (skip) return;
  // `always`, so that nothing accepted is lost when the server is killed.
  const starting = [start({ PENSTOCK_FSYNC: "always" }), start(GUARDED), chromium()];
  [stack, guarded, browser] = await together(...starting);
});

after(async () => {
  await browser?.close();
  await Promise.all([stack?.stop(), guarded?.stop()]);
});

async function open(path, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(String(error)));
  await page.goto((options.url ?? stack.url) + path);
  await page.locator("h1").first().waitFor();
  return page;
}

const rows = (page) => page.$$eval("[data-job]", (all) => all.map((it) => it.dataset.job));
const live = (page) => page.locator('.link-state[data-link="live"]').waitFor();

test("a job that is submitted over HTTP appears in the open page", { skip }, async () => {
  const page = await open("/jobs");
  await live(page);
  await page.evaluate(() => {
    window.notReloaded = true;
  });
  const id = await submit(stack, "ai", sentence("Das ist ein Satz."));
  await page.locator(`[data-job="${id}"] [data-state="completed"]`).waitFor();
  assert.equal(await page.evaluate(() => window.notReloaded), true);
  await page.locator(`[data-job="${id}"]`).click();
  await page.locator("h1", { hasText: "ai.language" }).waitFor();
  await page.locator(".history b", { hasText: "completed" }).waitFor();
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test("who reads a row is not moved: what is new waits behind a button", { skip }, async () => {
  const page = await open("/jobs?queue=ai");
  await live(page);
  await page.locator("[data-job]").first().waitFor();
  await page.keyboard.press("j");
  await page.locator('[data-at="true"]').waitFor();
  const [at] = await page.$$eval('[data-at="true"]', (all) => all.map((it) => it.dataset.job));
  const first = (await rows(page))[0];
  assert.equal(at, first);
  const id = await submit(stack, "ai", sentence("While somebody reads."));
  await page.locator(".held", { hasText: "1 new job" }).waitFor();
  assert.equal((await rows(page))[0], first);
  await page.locator(".held").click();
  await page.locator(`[data-job="${id}"]`).waitFor();
  assert.equal((await rows(page))[0], id);
  await page.context().close();
});

test("the API and then Redis are killed: no row is lost and none is doubled", { skip }, async () => {
  const page = await open("/jobs?queue=ai");
  await live(page);
  const ids = [await submit(stack, "ai", sentence("Before."))];
  for (const role of ["api", "server"]) {
    await page.locator(`[data-job="${ids.at(-1)}"] [data-state="completed"]`).waitFor();
    await stack.kill(role);
    ids.push(await submit(stack, "ai", sentence(`After ${role}.`)));
    await page.locator(`[data-job="${ids.at(-1)}"] [data-state="completed"]`).waitFor({ timeout: 30_000 });
  }
  const seen = await rows(page);
  const told = await (await fetch(`${stack.api}/jobs/ai?limit=500`)).json();
  assert.equal(new Set(seen).size, seen.length);
  assert.deepEqual(new Set(seen), new Set(told.jobs.map((it) => it.id)));
  for (const id of ids) assert.ok(seen.includes(id), id);
  await page.context().close();
});

test("filters stand in the address, and all that failed runs again after it was counted", { skip }, async () => {
  for (let n = 0; n < 3; n += 1) await submit(stack, "image", WRONG);
  const page = await open("/jobs");
  await page.locator(".chips button", { hasText: "failed" }).click();
  await page.getByLabel("Queue", { exact: true }).selectOption("image");
  await page.waitForURL(/\?(?=.*state=failed)(?=.*queue=image)/);
  await eventually(async () => (await rows(page)).length === 3);
  await page.getByRole("button", { name: "Run all again…" }).click();
  await page.locator("dialog b", { hasText: "3 jobs" }).waitFor();
  await page.getByRole("button", { name: "Run them again" }).click();
  await page.locator("dialog", { hasText: "3 done of 3" }).waitFor();
  const [id] = await rows(page);
  const history = await (await fetch(`${stack.api}/jobs/image/${id}/events`)).json();
  assert.ok(history.events.some((it) => it.event === "requeued"));
  await page.context().close();
});

test("jobs are found by a word in their payload", { skip }, async () => {
  const id = await submit(stack, "ai", sentence("Der Zitronenfalter faltet keine Zitronen."));
  await submit(stack, "ai", sentence("Etwas anderes."));
  const page = await open("/jobs");
  await page.getByLabel("Text in payload, result or error").fill("zitronenfalter");
  await page.locator(`[data-job="${id}"]`).waitFor();
  await page.locator(".search-line", { hasText: "1 found" }).waitFor();
  assert.deepEqual(await rows(page), [id]);
  await page.waitForURL(/text=zitronenfalter/);
  await page.context().close();
});

test("the past is shown as it was", { skip }, async () => {
  const first = await submit(stack, "email", { type: "email.send", payload: MAIL, delay: 3600 });
  const { submitted_at } = await (await fetch(`${stack.api}/jobs/email/${first}`)).json();
  const second = await submit(stack, "email", { type: "email.send", payload: MAIL, delay: 3600 });
  const page = await open(`/travel?queue=email&at=${Date.parse(submitted_at)}`);
  await page.locator(".then code", { hasText: first }).waitFor();
  assert.equal(await page.locator(".then code", { hasText: second }).count(), 0);
  await fetch(`${stack.api}/jobs/email/${first}/cancel`, { method: "POST" });
  await page.locator(".then a", { hasText: first }).click();
  await page.locator(".past", { hasText: "As it was at" }).locator('[data-state="delayed"]').waitFor();
  await page.getByRole("button", { name: "Back to now" }).click();
  await page.locator("h1", { hasText: "cancelled" }).waitFor();
  assert.equal(await page.locator(".past").count(), 0);
  await page.goBack();
  await page.getByLabel("Go to").fill("2999-01-01T00:00:00");
  await page.keyboard.press("Enter");
  await page.locator(".then code", { hasText: second }).waitFor();
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test("a job is edited and runs again, as a new one", { skip }, async () => {
  const id = await submit(stack, "ai", sentence("Guten Tag."));
  const page = await open(`/jobs/ai/${id}`);
  await page.getByRole("button", { name: "Edit and run again" }).click();
  await page.getByLabel("Payload", { exact: true }).first().fill('{"text": 5}');
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.locator("dialog .trouble", { hasText: "payload.text" }).waitFor();
  await page.locator("dialog textarea").fill('{"text": "Bonjour à tous."}');
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.waitForURL((url) => !url.pathname.endsWith(id));
  const made = new URL(page.url()).pathname.split("/").at(-1);
  const job = await eventually(async () => {
    const told = await (await fetch(`${stack.api}/jobs/ai/${made}`)).json();
    return told.state === "completed" && told;
  });
  assert.deepEqual([job.payload, job.origin], [{ text: "Bonjour à tous." }, id]);
  await page.context().close();
});

test("axe finds nothing serious on any page, light and dark", { skip }, async () => {
  const failed = await submit(stack, "image", WRONG);
  const places = ["/", "/jobs", "/failures", "/workers", "/schedules", "/flows", "/travel", "/submit", `/jobs/image/${failed}`];
  for (const colorScheme of ["light", "dark"]) {
    const page = await open("/", { colorScheme });
    for (const place of places) {
      await page.goto(stack.url + place);
      await page.locator("main h1").waitFor();
      await page.waitForFunction(() => !document.querySelector(".loading"));
      assert.deepEqual(await findings(page), [], `${place} ${colorScheme}`);
    }
    assert.deepEqual(page.problems, []);
    await page.context().close();
  }
});

test("with a password: login, what may not be, and a change from elsewhere", { skip }, async () => {
  await submit(guarded, "ai", sentence("Guten Tag."));
  const page = await open("/jobs", { url: guarded.url });
  const enter = async (password) => {
    await page.getByLabel("Password").fill(password);
    await page.getByRole("button", { name: "Log in" }).click();
  };
  assert.deepEqual(await findings(page), []);
  await enter("guess");
  await page.locator(".trouble", { hasText: "not the password" }).waitFor();
  await enter("let me see");
  await page.locator("h1", { hasText: "Jobs" }).waitFor();
  await page.goto(`${guarded.url}/`);
  await page.locator("table.queues").waitFor();
  assert.equal(await page.getByRole("button", { name: /pause/i }).count(), 0);
  await page.goto(`${guarded.url}/jobs?state=completed`);
  await page.locator("[data-job]").first().waitFor();
  assert.equal(await page.getByRole("button", { name: /again/i }).count(), 0);
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByLabel("Password").waitFor();
  await enter("open sesame");
  await page.getByRole("button", { name: "pause ai" }).click();
  await page.getByRole("button", { name: "resume ai" }).waitFor();
  const resume = () => fetch("/app/api/queues/ai/resume", { method: "POST" }).then((it) => it.status);
  assert.equal(await page.evaluate(resume), 403);
  const told = await (await fetch(`${guarded.api}/queues/ai`)).json();
  assert.equal(told.paused, true);
  await page.context().close();
});
