/** Builds the web app into ui/static/app, from where the dashboard's server serves it.
 *
 * `npm run dev` serves it with hot reload, in front of a dashboard that runs on DASHBOARD (port 3000).
 */
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const dashboard = process.env.DASHBOARD ?? "http://127.0.0.1:3000";

export default defineConfig({
  plugins: [react()],
  build: {
    outDir: "../static/app",
    emptyOutDir: true,
    // The server's Content-Security-Policy allows no script in the page and no data: but for pictures.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2023",
  },
  server: { proxy: { "/app": { target: dashboard, changeOrigin: true } } },
});
