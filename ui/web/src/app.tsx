/** The frame around the pages: who is here, where one can go, and whether what is shown is live. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { lazy, type ReactNode, Suspense, useEffect, useState } from "react";
import { session } from "./api/client";
import { follow, useLink } from "./api/feed";
import { sessionQuery, useQueues } from "./api/queries";
import type { Session } from "./api/types";
import { useKeys } from "./keys";
import { count } from "./lib/format";
import { Jobs } from "./pages/jobs";
import { Login } from "./pages/login";
import { Overview } from "./pages/overview";
import { Palette } from "./palette";
import { Button, Empty, Loading, Trouble } from "./parts/basic";
import { Here } from "./parts/here";
import { Icon } from "./parts/icons";
import { flipTheme } from "./parts/theme";
import { Toasts } from "./parts/toast";
import { PLACES } from "./places";
import { go, Link, usePath } from "./router";

const Job = lazy(() => import("./pages/job"));
const Failures = lazy(() => import("./pages/failures"));
const Workers = lazy(() => import("./pages/workers"));
const Schedules = lazy(() => import("./pages/schedules"));
const Flows = lazy(() => import("./pages/flows"));
const Travel = lazy(() => import("./pages/travel"));
const Submit = lazy(() => import("./pages/submit"));

const pages: Record<string, (rest: string[]) => ReactNode> = {
  "": () => <Overview />,
  jobs: ([queue, id]) => (queue && id ? <Job key={id} id={id} /> : <Jobs />),
  failures: () => <Failures />,
  workers: () => <Workers />,
  schedules: () => <Schedules />,
  flows: ([id]) => <Flows id={id} />,
  travel: () => <Travel />,
  submit: () => <Submit />,
};

export function App() {
  const { data: here, error, refetch } = useQuery(sessionQuery);
  const path = usePath();
  if (error) return <Trouble error={error} again={refetch} />;
  if (!here) return null;
  if (here.login_needed) return <Login />;
  if (path === "/login") go("/", true);
  return (
    <Here value={here}>
      <Shell here={here} path={path} />
    </Here>
  );
}

function Shell({ here, path }: { here: Session; path: string }) {
  const client = useQueryClient();
  const [palette, setPalette] = useState<"closed" | "commands" | "help">("closed");
  useEffect(() => follow(client), [client]);
  useKeys(setPalette);
  const [place = "", ...rest] = path.split("/").filter(Boolean).map(decodeURIComponent);
  const page = pages[place];
  useEffect(() => {
    document.title = [PLACES.find((it) => it.to === `/${place}`)?.name, "Penstock"]
      .filter(Boolean)
      .join(" · ");
  }, [place]);
  return (
    <div className="shell">
      <a className="skip" href="#main">
        Skip to the page
      </a>
      <Sidebar here={here} place={place} onPalette={() => setPalette("commands")} />
      <main id="main" tabIndex={-1}>
        <Suspense fallback={<Loading />}>
          {page ? page(rest) : <Empty title="There is no such page" />}
        </Suspense>
      </main>
      <Palette mode={palette} onClose={() => setPalette("closed")} />
      <Toasts />
    </div>
  );
}

function Sidebar({ here, place, onPalette }: { here: Session; place: string; onPalette: () => void }) {
  const { data: queues = [] } = useQueues();
  const total = (state: "active" | "failed") => queues.reduce((sum, it) => sum + it.counts[state], 0);
  const marks: Record<string, number> = { "/jobs": total("active"), "/failures": total("failed") };
  return (
    <aside className="sidebar">
      <div className="brand">
        <img src="/favicon.svg" alt="" width="24" height="24" />
        <b>Penstock</b>
        <LinkState />
      </div>
      <button type="button" className="find" onClick={onPalette}>
        <Icon name="search" /> Go to… <kbd>{navigator.platform.startsWith("Mac") ? "⌘" : "Ctrl"} K</kbd>
      </button>
      <nav aria-label="Pages">
        {PLACES.map((it) => (
          <Link key={it.to} href={it.to} aria-current={it.to === `/${place}` ? "page" : undefined}>
            <Icon name={it.icon} />
            <span>{it.name}</span>
            {marks[it.to] ? <small data-tone={it.icon}>{count(marks[it.to] ?? 0)}</small> : null}
          </Link>
        ))}
      </nav>
      <footer>
        {here.notice && <p>{here.notice}</p>}
        <div>
          <Button
            kind="quiet"
            icon="theme"
            aria-label="Light or dark"
            title="Light or dark"
            onClick={flipTheme}
          />
          <Leave here={here} />
          <span className="dim">
            {here.role === "read" ? "read only · " : ""}v{here.version}
          </span>
        </div>
      </footer>
    </aside>
  );
}

function Leave({ here }: { here: Session }) {
  const client = useQueryClient();
  if (here.user === "local") return null;
  const leave = async () => {
    await session("/app/logout", {});
    client.clear();
    await client.invalidateQueries();
    window.location.assign("/login");
  };
  return <Button kind="quiet" icon="leave" aria-label="Log out" title="Log out" onClick={leave} />;
}

/** Whether the feed flows. */
function LinkState() {
  const link = useLink();
  const words = { connecting: "connecting", live: "live", away: "reconnecting" }[link];
  return (
    <span className="link-state" data-link={link} role="status">
      {words}
    </span>
  );
}
