// Draws `figure` with plotly.js, which stands before this, and draws it again whenever it changes.
// A chart is measured when it is drawn, so it is drawn once the page has given it a width, and
// resized when that changes: JupyterLab changes a cell's width with its side bars.

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
