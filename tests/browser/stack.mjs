/** A whole Penstock of the test's own: on free ports, with its data in a folder that goes with it. */
import { spawn } from "node:child_process";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = new URL("../../", import.meta.url).pathname;
const START_MS = 60_000;
const python = join(ROOT, ".venv/bin/python");
const program = ["-P", "-m", "penstock.ui"];

/** `penstock up`; `environ` goes on top of it. */
export async function start(environ = {}) {
  const folder = await mkdtemp(join(tmpdir(), "penstock-browser-"));
  const [api, dashboard, smtp, mail] = await freePorts(4);
  const clean = Object.entries(process.env).filter(([name]) => !name.startsWith("PENSTOCK_"));
  const env = {
    ...Object.fromEntries(clean),
    PENSTOCK_DATA_DIR: folder,
    PENSTOCK_API_PORT: api,
    PENSTOCK_DASHBOARD_PORT: dashboard,
    PENSTOCK_MAIL_PORT: smtp,
    PENSTOCK_MAIL_WEB_PORT: mail,
    PENSTOCK_METRICS_PORT: 0,
    ...environ,
  };
  const process_ = spawn(python, [...program, "up", "--no-demo"], { cwd: folder, env });
  const said = await ready(process_);
  const url = `http://127.0.0.1:${dashboard}`;
  return {
    url,
    api: `http://127.0.0.1:${api}`,
    /** One more of its processes, by its command; `end` it. */
    also(...command) {
      const more = spawn(python, [...program, ...command], { cwd: folder, env, stdio: "ignore" });
      const gone = new Promise((done) => more.once("exit", done));
      return { end: () => (more.kill("SIGTERM"), gone) };
    },
    /** A Python program with its settings; `gone` answers what it printed, or why it failed. */
    python(...args) {
      const child = spawn(python, args, { cwd: folder, env });
      const said = [];
      for (const it of [child.stdout, child.stderr]) it.on("data", (chunk) => said.push(String(chunk)));
      const gone = new Promise((done, fail) => {
        child.once("exit", (code) => (code ? fail(new Error(said.join(""))) : done(said.join(""))));
      });
      return { input: child.stdin, gone, kill: () => child.kill("SIGKILL") };
    },
    /** End one of its processes at once; whoever supervises it starts it again. */
    async kill(role) {
      process.kill(await child(process_.pid, role), "SIGKILL");
    },
    async stop() {
      const gone = new Promise((done) => process_.once("exit", done));
      process_.kill("SIGTERM");
      await gone;
      await rm(folder, { recursive: true, force: true });
    },
    said,
  };
}

/** What all of these begin to: stacks and browsers. Where one cannot begin, the others are ended. */
export async function together(...beginning) {
  const begun = await Promise.allSettled(beginning);
  const broken = begun.find((it) => it.status === "rejected");
  if (!broken) return begun.map((it) => it.value);
  await Promise.all(begun.map(({ value }) => value && (value.stop ? value.stop() : value.close())));
  throw broken.reason;
}

/** Submit a job over HTTP; answers its id. It is tried again while the API is away, under the same key. */
export async function submit(stack, queue, job, headers = {}) {
  const key = crypto.randomUUID();
  return await eventually(async () => {
    const answer = await fetch(`${stack.api}/jobs/${queue}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": key, ...headers },
      body: JSON.stringify(job),
    }).catch(() => null);
    if (!answer || answer.status >= 500) return null;
    if (!answer.ok) throw new Error(await answer.text());
    return (await answer.json()).id;
  });
}

/** What `look` answers once that is something; an error after `ms`. */
export async function eventually(look, ms = 20_000) {
  const end = Date.now() + ms;
  while (Date.now() < end) {
    const found = await look();
    if (found) return found;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`not within ${ms} ms: ${look}`);
}

function ready(process_) {
  const said = [];
  return new Promise((done, fail) => {
    const late = setTimeout(() => fail(new Error(`not ready:\n${said.join("")}`)), START_MS);
    const hear = (chunk) => {
      said.push(String(chunk));
      if (!String(chunk).includes("running; Ctrl-C stops")) return;
      clearTimeout(late);
      done(said);
    };
    process_.stdout.on("data", hear);
    process_.stderr.on("data", hear);
    process_.once("exit", (code) => fail(new Error(`ended with ${code}:\n${said.join("")}`)));
  });
}

async function child(parent, role) {
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    const [stat, line] = await Promise.all(
      ["stat", "cmdline"].map((name) => readFile(`/proc/${pid}/${name}`, "utf8").catch(() => "")),
    );
    const [, above] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (Number(above) === parent && line.split("\0").includes(role)) return Number(pid);
  }
  throw new Error(`no process ${role}`);
}

async function freePorts(many) {
  const servers = await Promise.all(
    Array.from({ length: many }, () => new Promise((done) => {
      const server = createServer().listen(0, "127.0.0.1", () => done(server));
    })),
  );
  const ports = servers.map((it) => String(it.address().port));
  await Promise.all(servers.map((it) => new Promise((done) => it.close(done))));
  return ports;
}
