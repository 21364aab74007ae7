/** The jobs page and the job page in Chromium: filters, kin, mails as they look, and one stream a tab. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, test } from "node:test";
import { chromium, executable, findings } from "./browser.mjs";
import { eventually, start, submit } from "./stack.mjs";

const skip = existsSync(executable) || process.env.CI === "true" ? false : `no ${executable}`;
const LATER = { delay: 3600 };
const WRONG = { type: "image.resize", payload: { source: `sha256-${"0".repeat(64)}`, width: 9 }, attempts: 1 };
const sentence = (text, more = {}) => ({ type: "ai.language", payload: { text }, ...more });
const HTML = `<style>h1 { color: rgb(200, 0, 0) }</style><h1 style="font-style: italic">Hello</h1>
<script>document.querySelector("h1").textContent = "scripted"</script>
<img src="https://elsewhere.example/pixel.gif"><a href="https://elsewhere.example/">away</a>`;

let stack;
let browser;

before(async () => {
  if (skip) return;
  [stack, browser] = await Promise.all([start(), chromium()]);
});

after(async () => {
  await browser?.close();
  await stack?.stop();
});

async function open(path) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(String(error)));
  await page.goto(stack.url + path);
  await page.locator("h1").first().waitFor();
  return page;
}

const rows = (page) => page.$$eval("[data-job]", (all) => all.map((it) => it.dataset.job));
const told = async (queue, id) => (await fetch(`${stack.api}/jobs/${queue}/${id}`)).json();
const ended = (queue, id) =>
  eventually(async () => ["completed", "failed"].includes((await told(queue, id)).state));

test("jobs are filtered by what is known of them, with the keyboard alone, and the address holds it", { skip }, async () => {
  const vip = await submit(stack, "ai", sentence("Guten Tag.", { tags: ["vip"] }));
  const other = await submit(stack, "ai", sentence("Good day.", { tags: ["other"] }));
  const wrong = await submit(stack, "image", WRONG);
  await Promise.all([ended("ai", vip), ended("ai", other), ended("image", wrong)]);
  await eventually(async () => (await (await fetch(`${stack.api}/known`)).json()).errors.length > 0);
  const page = await open("/jobs");
  await page.getByRole("button", { name: "More filters" }).focus();
  await page.keyboard.press("Enter");
  const field = (name) => page.getByLabel(name, { exact: true });
  await field("Tag").focus();
  const words = async (name) => {
    const list = await field(name).getAttribute("list");
    return page.$$eval(`[id="${list}"] option`, (all) => all.map((it) => it.value));
  };
  await eventually(async () => (await words("Tag")).includes("vip"));
  await page.keyboard.type("vip");
  await page.waitForURL(/tag=vip/);
  await eventually(async () => (await rows(page)).join() === vip);
  assert.equal(await page.evaluate(() => document.activeElement.value), "vip");
  await field("Tag").fill("");
  const [error] = (await words("Error")).filter((it) => it.includes(": "));
  await field("Error").fill(error);
  await page.waitForURL((url) => url.searchParams.get("error") === error && !url.searchParams.has("tag"));
  await eventually(async () => (await rows(page)).join() === wrong);
  const worker = (await words("Worker"))[0];
  await field("Worker").fill("nobody");
  await page.keyboard.press("Enter");
  await page.getByText("No job fits all of this.").waitFor();
  await field("Worker").fill(worker);
  await page.getByRole("button", { name: "1 h", exact: true }).click();
  await page.waitForURL((url) => url.searchParams.has("from") && url.searchParams.get("worker") === worker);
  assert.deepEqual(await findings(page), []);
  await page.reload();
  assert.equal(await field("Error").inputValue(), error);
  assert.notEqual(await field("Submitted from").inputValue(), "");
  await page.getByRole("button", { name: "Clear all" }).click();
  await page.waitForURL((url) => url.search === "");
  for (const id of [vip, other, wrong]) await page.locator(`[data-job="${id}"]`).waitFor();
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test("what is done to many is done to no more than is shown", { skip }, async () => {
  const page = await open("/jobs?state=failed&tag=none");
  await page.getByRole("button", { name: "Run all again…" }).waitFor();
  await page.goto(`${stack.url}/jobs?state=failed&worker=none`);
  await page.getByText("No job fits all of this.").waitFor();
  assert.equal(await page.getByRole("button", { name: "Run all again…" }).count(), 0);
  await page.context().close();
});

test("a job names what it was made from and what was made from it", { skip }, async () => {
  const first = await submit(stack, "ai", sentence("Eins."));
  await ended("ai", first);
  const again = { method: "POST", headers: { "Content-Type": "application/json" }, body: '{"payload": {"text": "Zwei."}}' };
  const { id } = await (await fetch(`${stack.api}/jobs/ai/${first}/retry`, again)).json();
  await eventually(async () => (await (await fetch(`${stack.api}/jobs/ai/${first}/children`)).json()).jobs.length === 1);
  const page = await open(`/jobs/ai/${id}`);
  await page.locator(".kin a", { hasText: first }).click();
  await page.waitForURL(new RegExp(first));
  await page.locator(".kin a", { hasText: id }).waitFor();
  await page.goto(`${stack.url}/jobs?origin=${first}`);
  await eventually(async () => (await rows(page)).join() === id);
  await page.context().close();
});

test("a job of a flow names what it waits for, and what waits for it", { skip }, async () => {
  const node = (name, after = []) => ({ name, ...sentence(name), after });
  const nodes = [node("one"), node("two", ["one"]), node("three", ["two"])];
  const flow = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ name: "count", nodes }) };
  const { id } = await (await fetch(`${stack.api}/flows`, flow)).json();
  const done = await (await fetch(`${stack.api}/flows/${id}?wait=30`)).json();
  assert.equal(done.state, "completed");
  const page = await open(`/jobs/ai/${done.nodes[1].job}`);
  await page.locator(".kin a", { hasText: "count" }).waitFor();
  const shown = await page.locator(".kin").innerText();
  assert.match(shown, /“two” of the flow[^]*count[^]*Waits for[^]*one[^]*Wait for it[^]*three/);
  assert.deepEqual(await findings(page), []);
  await page.context().close();
});

test("a mail looks as it is, and runs and loads nothing", { skip }, async () => {
  const mail = { to: ["ada@example.org"], subject: "Hello", text: "Hello\n  in words.", html: HTML };
  const id = await submit(stack, "email", { type: "email.send", payload: mail, ...LATER });
  const page = await open("/jobs");
  const loaded = [];
  page.on("requestfinished", (request) => loaded.push(request.url()));
  await page.goto(`${stack.url}/jobs/email/${id}`);
  const title = page.frameLocator("iframe.mail").locator("h1");
  await title.waitFor();
  const style = await title.evaluate((it) => [getComputedStyle(it).color, getComputedStyle(it).fontStyle]);
  assert.deepEqual(style, ["rgb(200, 0, 0)", "italic"]);
  assert.equal(await title.textContent(), "Hello");
  await page.frameLocator("iframe.mail").getByText("away").click();
  assert.equal(await title.textContent(), "Hello");
  await page.getByRole("button", { name: "Text", exact: true }).click();
  await page.frameLocator("iframe.mail").getByText("Hello in words.").waitFor();
  assert.deepEqual(loaded.filter((it) => !it.startsWith(stack.url)), []);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test("a tab has one stream, whatever it shows, and none while nobody looks", { skip }, async () => {
  const id = await submit(stack, "ai", sentence("Warten.", LATER));
  const context = await browser.newContext();
  const page = await context.newPage();
  const streams = new Set();
  const feed = (request) => request.url().includes("/app/feed");
  page.on("request", (it) => feed(it) && streams.add(it));
  for (const over of ["requestfinished", "requestfailed"]) page.on(over, (it) => streams.delete(it));
  await page.clock.install();
  await page.goto(`${stack.url}/jobs?queue=ai`);
  await page.locator(`[data-job="${id}"]`).click();
  await page.locator(".history b", { hasText: "submitted" }).waitFor();
  await fetch(`${stack.api}/jobs/ai/${id}/promote`, { method: "POST" });
  await page.locator(".history b", { hasText: "completed" }).waitFor();
  await page.goBack();
  const next = await submit(stack, "ai", sentence("Und weiter."));
  await page.locator(`[data-job="${next}"] [data-state="completed"]`).waitFor();
  await eventually(() => streams.size === 1);

  const look = (hidden) =>
    page.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
  await look(true);
  await page.clock.fastForward(61_000);
  await eventually(() => streams.size === 0);
  const missed = await submit(stack, "ai", sentence("Ungesehen."));
  await ended("ai", missed);
  await look(false);
  await page.locator(`[data-job="${missed}"] [data-state="completed"]`).waitFor();
  await eventually(() => streams.size === 1);
  await context.close();
});
