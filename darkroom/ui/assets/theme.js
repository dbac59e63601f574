// Before anything is painted: a promise of the scripts that come after it (`window.darkroomReady`), and the colours that this reader chose, dark if none. Gradio would go by the system's.
window.darkroomReady = new Promise((resolve) => document.addEventListener("darkroom:ready", resolve, { once: true }));
(() => {
  const KEY = "darkroom-theme";
  const read = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // a browser that keeps nothing
    }
  };
  const keep = (theme) => {
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // chosen for this page alone
    }
  };
  const root = document.documentElement;
  const paint = () => {
    const dark = root.dataset.theme === "dark";
    if (document.body && document.body.classList.contains("dark") !== dark) document.body.classList.toggle("dark", dark);
  };
  const asked = new URLSearchParams(location.search).get("__theme");
  root.dataset.theme = (asked || read()) === "light" ? "light" : "dark";
  document.addEventListener("DOMContentLoaded", () => {
    paint();
    new MutationObserver(paint).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  });
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("#theme-toggle")) return;
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    keep(root.dataset.theme);
    paint();
  });
})();
