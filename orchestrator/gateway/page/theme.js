// Light or dark: the system's choice until the reader makes one. Loaded before the first paint,
// and therefore a plain script.
(() => {
  const STORED = "r1-serve.theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  let chosen = null;
  try {
    chosen = localStorage.getItem(STORED);
  } catch {
    // Storage is blocked: the choice lasts as long as the page.
  }
  const isDark = () => (chosen ? chosen === "dark" : system.matches);

  function show() {
    root.dataset.theme = isDark() ? "dark" : "light";
    document.getElementById("theme")?.setAttribute("aria-pressed", String(isDark()));
  }

  show();
  system.addEventListener("change", show);
  addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      chosen = isDark() ? "light" : "dark";
      try {
        localStorage.setItem(STORED, chosen);
      } catch {
        // As above.
      }
      show();
    });
  });
})();
