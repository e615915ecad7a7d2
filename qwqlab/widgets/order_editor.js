// A list of samplers: drag a row, or move it with Alt and an arrow key or with its buttons; a box
// switches it on. `order` holds every name in the order shown, `enabled` those that are on.

function move(names, from, to) {
  const moved = [...names];
  moved.splice(to, 0, ...moved.splice(from, 1));
  return moved;
}

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function render({ model, el }) {
  let dragged = null;
  const list = make("ol", { className: "qwqlab-order" });
  const live = make("div", { className: "qwqlab-order-live" });
  list.setAttribute("aria-label", "Order of the samplers");
  live.setAttribute("aria-live", "polite");
  // JupyterLab would take arrow keys and letters here for its own shortcuts.
  el.dataset.lmSuppressShortcuts = "true";
  el.append(list, live);

  const order = () => model.get("order");
  const isOn = (name) => model.get("enabled").includes(name);

  function say(name) {
    const place = order().indexOf(name) + 1;
    const state = isOn(name) ? "on" : "off";
    live.textContent = `${name} is ${state}, at place ${place} of ${order().length}`;
  }

  function shift(name, to, focused) {
    const from = order().indexOf(name);
    if (to < 0 || to >= order().length || to === from) return;
    model.set("order", move(order(), from, to));
    model.save_changes();
    focus(name, focused);
    say(name);
  }

  function toggle(name, on) {
    const others = model.get("enabled").filter((other) => other !== name);
    model.set("enabled", on ? [...others, name] : others);
    model.save_changes();
    focus(name, "input");
    say(name);
  }

  function focus(name, part) {
    const row = list.querySelector(`[data-name="${name}"]`);
    const target = part ? row?.querySelector(part) : row;
    (target && !target.disabled ? target : row)?.focus();
  }

  function button(name, step, sign, word) {
    const to = order().indexOf(name) + step;
    const made = make("button", { textContent: sign, type: "button" });
    made.className = step < 0 ? "up" : "down";
    made.disabled = to < 0 || to >= order().length;
    made.setAttribute("aria-label", `move ${name} ${word}`);
    made.onclick = () => shift(name, to, `.${made.className}`);
    return made;
  }

  function onKey(event, name) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const index = order().indexOf(name);
    if (event.altKey) shift(name, index + step);
    else if (order()[index + step]) focus(order()[index + step]);
  }

  function makeRow(name, index) {
    const box = make("input", { type: "checkbox", checked: isOn(name) });
    box.setAttribute("aria-label", `use ${name}`);
    box.onchange = () => toggle(name, box.checked);
    const label = make("span", { className: "name", textContent: name });
    const up = button(name, -1, "▲", "up");
    const down = button(name, 1, "▼", "down");
    const row = make("li", { draggable: true, tabIndex: 0 }, box, label, up, down);
    row.dataset.name = name;
    row.title = model.get("notes")[name] ?? "";
    row.classList.toggle("off", !isOn(name));
    row.setAttribute(
      "aria-label",
      `${name}, ${isOn(name) ? "on" : "off"}, place ${index + 1}; Alt and an arrow move it`,
    );
    row.onkeydown = (event) => onKey(event, name);
    row.ondragstart = (event) => {
      dragged = name;
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", name);
    };
    row.ondragover = (event) => {
      if (!dragged) return;
      event.preventDefault();
      event.stopPropagation();
      row.classList.add("target");
    };
    row.ondragleave = () => row.classList.remove("target");
    row.ondragend = () => {
      dragged = null;
    };
    row.ondrop = (event) => {
      if (!dragged) return;
      event.preventDefault();
      event.stopPropagation();
      const name = dragged;
      dragged = null;
      row.classList.remove("target");
      shift(name, index);
    };
    return row;
  }

  function draw() {
    const active = list.contains(document.activeElement) && document.activeElement;
    const name = active && active.closest("li").dataset.name;
    const part = active && active.tagName !== "LI" ? active.tagName.toLowerCase() : null;
    list.replaceChildren(...order().map(makeRow));
    if (name) focus(name, part === "button" ? `.${active.className}` : part);
  }

  model.on("change:order", draw);
  model.on("change:enabled", draw);
  draw();
  return () => {
    for (const trait of ["order", "enabled"]) model.off(`change:${trait}`, draw);
  };
}

export default { render };
