// ipywidgets draws sliders, bars, groups and status lines without a name or a role. Each panel holds one of
// these empty boxes, which adds them whenever something in the panel is drawn.

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (element && element.getAttribute(name) !== value) element.setAttribute(name, value);
  }
}

function nameOf(widget) {
  return widget.querySelector(".widget-label").textContent.trim();
}

function mend(panel) {
  for (const slider of panel.querySelectorAll(".widget-slider")) {
    const name = nameOf(slider);
    set(slider.querySelector(".noUi-handle"), { "aria-label": name });
    const number = { role: "textbox", "aria-label": `${name}, as a number` };
    set(slider.querySelector(".widget-readout"), number);
  }
  for (const bar of panel.querySelectorAll(".widget-hprogress")) {
    const done = Math.round(parseFloat(bar.querySelector(".progress-bar").style.width)) || 0;
    const now = { role: "progressbar", "aria-label": nameOf(bar), "aria-valuenow": `${done}` };
    set(bar.querySelector(".progress"), now);
  }
  for (const box of panel.querySelectorAll(".qwqlab-settings")) {
    set(box, { role: "group", "aria-label": box.querySelector("button").textContent });
  }
  for (const line of panel.querySelectorAll(".qwqlab-status")) set(line, { role: "status" });
  for (const chart of panel.querySelectorAll(".js-plotly-plot")) {
    // A sentence about it and its numbers are below it.
    const title = chart.querySelector(".gtitle")?.textContent;
    if (title) set(chart, { role: "figure", "aria-label": title });
  }
}

function render({ el }) {
  let panel = null;
  const changes = new MutationObserver(() => mend(panel));
  // There is a panel around the box only once both are on the page.
  const placed = new ResizeObserver(() => {
    if (panel || !(panel = el.closest(".qwqlab-panel"))) return;
    mend(panel);
    const style = { attributes: true, attributeFilter: ["style"] };
    changes.observe(panel, { childList: true, subtree: true, ...style });
  });
  el.style.width = "100%";
  placed.observe(el);
  return () => {
    placed.disconnect();
    changes.disconnect();
  };
}

export default { render };
