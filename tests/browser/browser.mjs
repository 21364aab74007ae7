/** The browser of these tests: the system's Chromium, driven by playwright-core out of ui/web. */
import { createRequire } from "node:module";
import { readFile } from "node:fs/promises";

const web = createRequire(new URL("../../ui/web/package.json", import.meta.url));
const playwright = web("playwright-core");
const axe = await readFile(web.resolve("axe-core/axe.min.js"), "utf8");

export const executable = process.env.CHROMIUM ?? "/usr/bin/chromium";

export function chromium() {
  return playwright.chromium.launch({
    executablePath: executable,
    args: [
      ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"],
      ...["--disable-background-networking", "--disable-component-update"],
    ],
  });
}

/** What axe finds serious or critical on a page (WCAG 2.2 A and AA), each as a line. */
export async function findings(page) {
  await page.evaluate(axe);
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
  const { violations } = await page.evaluate((tags) => globalThis.axe.run({ runOnly: tags }), tags);
  return violations
    .filter((it) => it.impact === "serious" || it.impact === "critical")
    .flatMap((it) => it.nodes.map((node) => `${it.id} ${node.target} ${node.failureSummary.split("\n")[1]}`));
}
