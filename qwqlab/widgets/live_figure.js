// Draws `figure` with plotly.js, which comes before this in the same module, and again whenever it
// changes. Plotly measures a chart when it draws it, so this waits until the page has given the
// chart a width, and resizes it when that changes: a cell's width depends on JupyterLab's side bars.

function render({ model, el }) {
  const chart = document.createElement("div");
  el.style.width = "100%";
  el.append(chart);
  let width = 0;

  function draw() {
    const { data, layout } = model.get("figure");
    if (width) window.Plotly.react(chart, data, layout, { responsive: true });
  }

  const watcher = new ResizeObserver(([entry]) => {
    const [before, now] = [width, Math.round(entry.contentRect.width)];
    width = now;
    if (!before) draw();
    else if (now && now !== before) window.Plotly.Plots.resize(chart);
  });
  watcher.observe(el);
  model.on("change:figure", draw);
  return () => {
    watcher.disconnect();
    model.off("change:figure", draw);
    window.Plotly.purge(chart);
  };
}

export default { render };
