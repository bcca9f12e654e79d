// Charts, drawn in the colours of the page and drawn anew when those change.
(() => {
  "use strict";
  const place = document.querySelector(".chart[data-from]");
  if (!place || !window.uPlot) return;
  let plot = null, shown = null;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const draw = () => {
    if (!shown) return;
    plot?.destroy();
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
    const bars = uPlot.paths.bars({ size: [0.8, 20] });
    const series = (label, name) => ({ label, stroke: colour(name), fill: colour(name), width: 0, paths: bars, points: { show: false } });
    plot = new uPlot({
      width: place.clientWidth,
      height: 200,
      scales: { x: { range: (self, low, high) => [low - 30, high + 30] }, y: { range: (self, low, high) => [0, Math.max(4, high * 1.1)] } },
      legend: { live: false },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      axes: [{ ...axis, values: (self, at) => at.map((each) => new Date(each * 1000).toISOString().slice(11, 16)) }, { ...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000] }],
      series: [{ label: "minute" }, series("ended", "--good"), series("of them failed", "--bad")],
      cursor: { y: false },
    }, [shown.at, shown.succeeded.map((good, index) => good + shown.failed[index]), shown.failed], place);
  };
  const ask = async () => {
    if (document.hidden) return;
    const answer = await fetch(place.dataset.from);
    if (!answer.ok) return;
    const next = await answer.json();
    if (plot && shown && JSON.stringify(next.at) === JSON.stringify(shown.at)) {
      shown = next;
      plot.setData([next.at, next.succeeded.map((good, index) => good + next.failed[index]), next.failed]);
    } else { shown = next; draw(); }
  };
  ask();
  document.addEventListener("swapped", ask);
  new ResizeObserver(() => plot?.setSize({ width: place.clientWidth, height: 200 })).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
})();
