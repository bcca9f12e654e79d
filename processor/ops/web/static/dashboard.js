// Keyboard, theme, and when live regions hold still. Every page works without this file, only less comfortably.
(() => {
  "use strict";
  const pages = { j: "/jobs", f: "/failures", d: "/letters", q: "/queues", a: "/audit", c: "/care" };
  let awaiting = false;

  const typing = () => /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");
  const rows = () => [...document.querySelectorAll("tbody tr a.row")];

  const step = (by) => {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement);
    all[Math.min(all.length - 1, Math.max(0, at + by))].focus();
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && typing()) return document.activeElement.blur();
    if (typing()) return;
    if (awaiting) {
      awaiting = false;
      if (pages[event.key]) window.location.assign(pages[event.key]);
      return;
    }
    const search = document.querySelector("input[type=search]");
    if (event.key === "/" && search) { event.preventDefault(); search.focus(); search.select(); }
    else if (event.key === "g") awaiting = true;
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "?") document.getElementById("keys")?.showModal();
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (!button) return;
    if (button.dataset.do === "theme") {
      const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark");
      const next = dark ? "light" : "dark";
      document.documentElement.dataset.theme = next;
      localStorage.setItem("theme", next);
    } else if (button.dataset.do === "keys") document.getElementById("keys").showModal();
    else if (button.dataset.do === "copy") navigator.clipboard?.writeText(button.dataset.text);
  });

  document.addEventListener("change", (event) => {
    if (event.target.id === "all") {
      for (const box of document.querySelectorAll("input[name=address]")) box.checked = event.target.checked;
    }
    if (event.target.name === "address" || event.target.id === "all") {
      const count = document.querySelectorAll("input[name=address]:checked").length;
      for (const place of document.querySelectorAll("[data-count]")) place.textContent = count;
      for (const place of document.querySelectorAll("input[name=chosen]")) place.value = count;
    }
  });

  // A region that is being worked in does not change under the hand, not even by an answer that is on its way.
  const busy = (region) =>
    document.hidden || region.querySelector?.("details.act[open], input[name=address]:checked, input:focus, textarea:focus");
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target.id === "live" && busy(event.target)) event.preventDefault();
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.target.id === "live" && busy(event.target)) event.detail.shouldSwap = false;
  });
  document.addEventListener("htmx:afterSwap", () => {
    const live = document.querySelector("#live[data-title]");
    if (live) document.title = live.dataset.title;
  });
})();
