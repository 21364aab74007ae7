/** Light or dark: as the system says, unless this browser was told otherwise. */
const KEY = "penstock-theme";

export type Theme = "system" | "light" | "dark";

export const theme = (): Theme => (localStorage.getItem(KEY) as Theme | null) ?? "system";

export function showTheme(chosen: Theme = theme()) {
  localStorage.setItem(KEY, chosen);
  document.documentElement.dataset.theme = chosen;
}

export function isDark(): boolean {
  const chosen = theme();
  return chosen === "dark" || (chosen === "system" && matchMedia("(prefers-color-scheme: dark)").matches);
}

/** From what is shown now to its opposite. */
export const flipTheme = () => showTheme(isDark() ? "light" : "dark");
