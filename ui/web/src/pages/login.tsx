/** Where a password is set, one comes in by this door. */
import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { session } from "../api/client";
import { sessionQuery } from "../api/queries";
import { Button, Trouble } from "../parts/basic";
import { go } from "../router";

export function Login() {
  const client = useQueryClient();
  const [password, setPassword] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const enter = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    try {
      client.setQueryData(sessionQuery.queryKey, await session("/app/login", { password }));
      if (window.location.pathname === "/login") go("/", true);
    } catch (problem) {
      setError(problem);
    } finally {
      setBusy(false);
    }
  };
  return (
    <main className="login">
      <form onSubmit={enter}>
        <img src="/favicon.svg" alt="" width="40" height="40" />
        <h1>Penstock</h1>
        <label>
          Password
          <input
            type="password"
            autoComplete="current-password"
            // biome-ignore lint/a11y/noAutofocus: the one thing to do on this page
            autoFocus
            required
            value={password}
            onChange={(event) => setPassword(event.target.value)}
          />
        </label>
        <Button kind="primary" type="submit" disabled={busy}>
          {busy ? "One moment…" : "Log in"}
        </Button>
        <Trouble error={error} />
      </form>
    </main>
  );
}
