"use strict";
// Light, dark, or as the system has it; kept where the browser allows it.

(() => {
  const button = document.querySelector("button.theme");
  const order = ["system", "light", "dark"];
  let kept = null;
  try { kept = localStorage.getItem("theme"); } catch { /* a page from disk may have no storage */ }
  set(order.includes(kept) ? kept : "system");
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = order[(order.indexOf(current()) + 1) % order.length];
    set(next);
    try { localStorage.setItem("theme", next); } catch { /* as above */ }
  });

  function current() {
    return document.documentElement.dataset.theme ?? "system";
  }

  function set(theme) {
    document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  }
})();
