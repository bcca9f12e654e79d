// Keyboard, theme, and when live regions hold still. Every page works without this file, only less comfortably.
(() => {
  "use strict";
  let awaiting = false;

  const typing = () => /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");
  const rows = () => [...document.querySelectorAll("tbody tr a.row")];

  const step = (by) => {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement);
    all[Math.min(all.length - 1, Math.max(0, at + by))].focus();
  };

  // On a phone the pages are a row that scrolls.
  const row = document.querySelector("header.top nav"), here = row?.querySelector("a[aria-current]");
  if (here) row.scrollLeft = here.offsetLeft - row.offsetLeft - (row.clientWidth - here.offsetWidth) / 2;

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && typing()) return document.activeElement.blur();
    if (typing() || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      const act = document.activeElement.closest?.("details.act[open]") ?? document.querySelector("details.act[open]");
      if (act) { act.open = false; act.querySelector("summary").focus(); }
      return;
    }
    if (awaiting) {
      awaiting = false;
      document.querySelector(`nav a[data-key="${CSS.escape(event.key)}"]`)?.click();
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
  });

  document.addEventListener("change", (event) => {
    if (event.target.id === "all") {
      for (const box of document.querySelectorAll("input[name=address]")) box.checked = event.target.checked;
    }
    if (event.target.name === "address" || event.target.id === "all") {
      tally();
    }
  });

  // What is ticked, wherever that is told; nothing can be done to none.
  const tally = () => {
    const chosen = [...document.querySelectorAll("input[name=address]:checked")].map((box) => box.value);
    for (const place of document.querySelectorAll("[data-count]")) place.textContent = chosen.length;
    for (const place of document.querySelectorAll("[data-chosen]")) place.textContent = chosen.join(" ") || "PARTITION@OFFSET…";
    for (const place of document.querySelectorAll("#chosen button")) place.disabled = !chosen.length;
  };
  tally();

  // A region that is being worked in does not change under the hand, not even by an answer that is on its way.
  const region = () => document.getElementById("live");
  const busy = (live) =>
    document.hidden || live.querySelector?.("details.act[open], input[name=address]:checked, input:focus, textarea:focus");
  let missed = false;
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target.id !== "live") return;
    missed = Boolean(busy(event.target));
    if (missed) event.preventDefault();
  });
  // Whoever goes through the rows by keyboard stays where they are.
  let kept = null;
  const nameOf = (each) => each.getAttribute("href") ?? each.textContent;
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.target.id !== "live") return;
    if (busy(event.target)) event.detail.shouldSwap = !(missed = true);
    const focused = document.activeElement;
    kept = event.target.contains(focused) ? { tag: focused.tagName, name: nameOf(focused) } : null;
  });
  document.addEventListener("htmx:afterSwap", () => {
    if (kept) {
      const same = [...(region()?.querySelectorAll(kept.tag) ?? [])].find((each) => nameOf(each) === kept.name);
      same?.focus({ preventScroll: true });
      kept = null;
    }
    const live = document.querySelector("#live[data-title]");
    if (live) document.title = live.dataset.title;
    tally();
    document.dispatchEvent(new CustomEvent("swapped"));
  });

  // The server says when something has changed. Where it cannot, the region asks every few seconds.
  const refresh = () => region()?.dispatchEvent(new CustomEvent("changed"));
  const advance = (live, job) => {
    const bar = live.querySelector(".going");
    if (!bar || job.done === null) return;
    const progress = bar.querySelector("progress");
    if (job.total) { progress.max = job.total; progress.value = job.done; } else progress.removeAttribute("value");
    const words = (amount) => amount.toLocaleString("en-US", { maximumFractionDigits: 2 }).replaceAll(",", "\u202f");
    bar.querySelector("[data-done]").textContent = words(job.done) + (job.total ? ` of ${words(job.total)}` : "");
    bar.querySelector("[data-note]").textContent = job.note ?? "";
    bar.hidden = false;
  };
  let source = null;
  let asked = Date.now();
  const letGo = () => { source?.close(); source = null; };
  const watch = () => {
    const path = region()?.dataset.events;
    if (!path || document.hidden || (source && source.readyState !== EventSource.CLOSED)) return;
    source = new EventSource(path);
    source.addEventListener("changed", refresh);
    source.addEventListener("status", (event) => {
      const live = region(), job = JSON.parse(event.data);
      if (`${job.life}.${job.attempt}.${job.state}` === live?.dataset.stands) advance(live, job);
      else refresh();
    });
  };
  document.addEventListener("htmx:beforeSend", (event) => { if (event.target.id === "live") asked = Date.now(); });
  document.addEventListener("visibilitychange", () => {
    // A browser has few connections to one host: a tab that nobody sees holds none.
    if (document.hidden) return letGo();
    watch();
    refresh();
  });
  window.addEventListener("pagehide", letGo);
  window.addEventListener("pageshow", watch);
  setInterval(() => {
    watch();
    const open = source?.readyState === EventSource.OPEN;
    if (missed || !open || Date.now() - asked > 30000) refresh();
  }, 5000);
})();
