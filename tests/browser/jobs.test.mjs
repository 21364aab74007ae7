/** The jobs page and the job page in Chromium: filters, kin, mails as they look, and one stream a tab. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { chromium, executable, findings } from "./browser.mjs";
import { eventually, start, submit, together } from "./stack.mjs";

const skip = existsSync(executable) || process.env.CI === "true" ? false : `no ${executable}`;
const LATER = { delay: 3600 };
const NOWHERE = `sha256-${"0".repeat(64)}`;
const broken = (width) => ({ type: "image.resize", payload: { source: NOWHERE, width }, tags: ["redriven"], attempts: 1 });
const WRONG = { type: "image.resize", payload: { source: NOWHERE, width: 9 }, attempts: 1 };
const PHOTO = new URL("../../ui/static/demo/hubble-deep-field.jpg", import.meta.url);
const sentence = (text, more = {}) => ({ type: "ai.language", payload: { text }, ...more });
const HTML = `<style>h1 { color: rgb(200, 0, 0) }</style><h1 style="font-style: italic">Hello</h1>
<script>document.querySelector("h1").textContent = "scripted"</script>
<img src="https://elsewhere.example/pixel.gif"><a href="https://elsewhere.example/">away</a>`;

let stack;
let browser;

before(async () => {
  if (skip) return;
  [stack, browser] = await together(start(), chromium());
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

test("what failed is submitted again as new jobs, changed, and only after a look", { skip }, async () => {
  const photo = { method: "POST", headers: { "Content-Type": "image/jpeg" }, body: await readFile(PHOTO) };
  const { id: source } = await (await fetch(`${stack.api}/artifacts`, photo)).json();
  const ids = await Promise.all([7, 8, 9].map((width) => submit(stack, "image", broken(width))));
  await Promise.all(ids.map((id) => ended("image", id)));
  const page = await open("/jobs?queue=image&type=image.resize&state=failed&tag=redriven");
  const button = (name) => page.getByRole("button", { name });
  const patch = page.getByLabel(/^Change to each payload/);
  const says = (text) => page.locator("dialog", { hasText: text }).waitFor();
  await button("Submit again as new jobs…").focus();
  await page.keyboard.press("Enter");
  await says("3 jobs would be submitted again.");
  await button("Submit 3 jobs again").waitFor();
  await button("+ source").click();
  assert.deepEqual(JSON.parse(await patch.inputValue()), { source: NOWHERE });

  await patch.fill('{"source": ');
  await says("No JSON yet");
  assert.ok(await button("Look first").isDisabled());
  assert.ok(await button("Submit them again").isDisabled());
  await patch.fill('{"width": "wide"}');
  assert.ok(await button("Submit them again").isDisabled());
  await button("Look first").click();
  await says("payload.width: expected");
  assert.ok(await button("Nothing to submit").isDisabled());

  await patch.fill(JSON.stringify({ source }));
  await page.getByLabel("Jobs per second").fill("100");
  await page.keyboard.press("Enter");
  await button("Submit 3 jobs again").waitFor();
  const changes = await page.$$eval(".changes li", (all) => all.map((it) => it.textContent));
  assert.deepEqual(changes, Array(3).fill(`source"${NOWHERE}"→ "${source}"`));
  assert.deepEqual(await findings(page), []);
  await button("Submit 3 jobs again").click();
  await page.locator("dialog", { hasText: "completed" }).getByText("Show the new jobs").click();

  await eventually(async () => (await rows(page)).length === 3);
  for (const id of await rows(page)) await page.locator(`[data-job="${id}"] [data-state="completed"]`).waitFor();
  assert.equal(await page.locator("dialog").count(), 0);
  const copies = await Promise.all((await rows(page)).map((id) => told("image", id)));
  assert.deepEqual(copies.map((it) => it.origin).toSorted(), ids.toSorted());
  assert.deepEqual(new Set(copies.map((it) => it.payload.source)), new Set([source]));
  await page.locator(`[data-job="${copies[0].id}"]`).click();
  await page.locator(".kin a", { hasText: copies[0].origin }).waitFor();
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test("a redrive that is known by its name is not another one", { skip }, async () => {
  const id = await submit(stack, "ai", sentence("Noch einmal.", { tags: ["again"] }));
  await ended("ai", id);
  const filter = { queue: "ai", state: "completed", tag: "again" };
  const begin = { method: "POST", headers: { "Content-Type": "application/json" } };
  const body = JSON.stringify({ filter, patch: { text: "Zum ersten." }, id: "taken" });
  const redrive = await (await fetch(`${stack.api}/redrive`, { ...begin, body })).json();
  await ended("penstock", redrive.id);
  const page = await open("/jobs?queue=ai&state=completed&tag=again");
  const button = (name) => page.getByRole("button", { name });
  await button("Submit again as new jobs…").click();
  await page.getByLabel(/^Name/).fill("taken");
  await page.keyboard.press("Enter");
  const submitting = button(/^Submit \d jobs? again/);
  await submitting.click();
  await page.locator('[data-wrong="true"]', { hasText: "another redrive under the same name" }).waitFor();
  await page.getByLabel(/^Change to each payload/).fill('{"text": "Zum ersten."}');
  await button("Look first").click();
  await submitting.click();
  await page.getByText("It was done before under this name, so nothing was submitted now.").waitFor();
  await page.locator("dialog a", { hasText: redrive.id }).click();
  await page.locator(".sent", { hasText: "Submitted again1" }).waitFor();
  assert.deepEqual(page.problems, []);
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
