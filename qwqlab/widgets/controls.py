"""Sliders, presets and the order of the samplers, read as one value: a `Sampling`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets

from ..sampling import BY_NAME, DEFAULT_ORDER, PRESETS, SETTINGS, Sampling, check_order
from .base import make_button

_HERE = Path(__file__).resolve().parent

# Name, low, high, step: the useful range of each, narrower than what llama.cpp accepts.
MAIN = (
    ("temp", 0, 2, 0.05),
    ("top_k", 0, 100, 1),
    ("top_p", 0, 1, 0.01),
    ("min_p", 0, 0.5, 0.01),
    ("repeat_penalty", 1, 2, 0.01),
    ("dry_multiplier", 0, 2, 0.05),
)
MORE = (
    ("repeat_last_n", 0, 512, 1),
    ("frequency_penalty", -2, 2, 0.05),
    ("presence_penalty", -2, 2, 0.05),
    ("dry_base", 1, 4, 0.05),
    ("dry_allowed_length", 0, 10, 1),
    ("dry_penalty_last_n", 0, 512, 1),
    ("typ_p", 0, 1, 0.01),
    ("top_n_sigma", -1, 5, 0.1),
    ("xtc_probability", 0, 1, 0.05),
    ("xtc_threshold", 0, 0.6, 0.01),
    ("dynatemp_range", 0, 2, 0.05),
    ("dynatemp_exp", 0, 3, 0.05),
    ("mirostat", 0, 2, 1),
    ("mirostat_ent", 0, 10, 0.1),
    ("mirostat_lr", 0, 1, 0.01),
)
OWN = "(none of them)"
_STYLE = {"description_width": "115px"}


class SamplingControls:
    """Widgets for a Sampling: a page shows `box`, and `sampling` is what they are set to.

    on_change is called, without arguments, once for each change of a widget, and not by `set`.
    Settings without a widget, such as DRY's sequence breakers, keep the value of the last Sampling
    that was set.
    """

    def __init__(self, sampling: Sampling, on_change: Callable[[], None]) -> None:
        self._base, self._on_change, self._quiet = sampling, on_change, False
        self.preset = widgets.Dropdown(
            options=[OWN, *PRESETS],
            description="preset",
            style=_STYLE,
            layout={"width": "auto"},
            tooltip="settings under a name",
        )
        self.order = OrderEditor(sampling.samplers)
        self.numbers = {row[0]: _make_slider(*row) for row in (*MAIN, *MORE)}
        # Not an Accordion, which only a mouse can open.
        self.more = widgets.VBox([self.numbers[name] for name, *_ in MORE])
        self.more_button = make_button("", self._toggle_more, "numbers that are rarely used")
        self._toggle_more()
        self.box = widgets.VBox(
            [
                self.preset,
                widgets.HTML("<b>Order</b>: drag, or Alt and an arrow key"),
                self.order,
                *(self.numbers[name] for name, *_ in MAIN),
                self.more_button,
                self.more,
            ],
            layout={"width": "310px"},
        )
        self.set(sampling)
        self.preset.observe(self._choose_preset, "value")
        self.order.observe(self._change, ["order", "enabled"])
        for slider in self.numbers.values():
            slider.observe(self._change, "value")

    @property
    def sampling(self) -> Sampling:
        """The Sampling of the widgets; SettingError if llama.cpp would refuse it."""
        values = {name: slider.value for name, slider in self.numbers.items()}
        return self._base.with_(samplers=self.order.samplers, **values)

    def set(self, sampling: Sampling) -> None:
        """Show a Sampling; a slider widens if its range does not hold the value."""
        self._base, before, self._quiet = sampling, self._quiet, True
        try:
            for name, slider in self.numbers.items():
                value = getattr(sampling, name)
                slider.min, slider.max = min(slider.min, value), max(slider.max, value)
                slider.value = value
            self.order.samplers = sampling.samplers
            self._name_preset()
        finally:
            self._quiet = before

    def _toggle_more(self) -> None:
        shown = self.more.layout.display != "none"
        self.more.layout.display = "none" if shown else ""
        self.more_button.description = f"{'show' if shown else 'hide'} more numbers"

    def _choose_preset(self, change: Any) -> None:
        if not self._quiet and change["new"] in PRESETS:
            self.set(PRESETS[change["new"]])
            self._on_change()

    def _change(self, _change: Any) -> None:
        if self._quiet:
            return
        self._quiet = True
        try:
            self._name_preset()
        finally:
            self._quiet = False
        self._on_change()

    def _name_preset(self) -> None:
        same = (name for name, preset in PRESETS.items() if preset == self.sampling)
        self.preset.value = next(same, OWN)


class OrderEditor(anywidget.AnyWidget):
    """A list of samplers to rearrange: drag a row, press Alt and an arrow key, or use its buttons.

    order holds every name in the order shown, enabled the names that are switched on, in any
    order. `samplers` combines them, as a Sampling takes it.
    """

    _esm = (_HERE / "order_editor.js").read_text(encoding="utf-8")
    _css = (_HERE / "order_editor.css").read_text(encoding="utf-8")
    order = traitlets.List(traitlets.Unicode()).tag(sync=True)
    enabled = traitlets.List(traitlets.Unicode()).tag(sync=True)
    notes = traitlets.Dict().tag(sync=True)

    def __init__(self, samplers: Iterable[str] = DEFAULT_ORDER, **traits: Any) -> None:
        samplers = check_order(samplers)
        super().__init__(
            order=_complete(samplers), enabled=list(samplers), notes=_explain_stages(), **traits
        )

    @property
    def samplers(self) -> tuple[str, ...]:
        """The names that are switched on, in their order."""
        return tuple(name for name in self.order if name in self.enabled)

    @samplers.setter
    def samplers(self, names: Iterable[str]) -> None:
        names = check_order(names)
        if names != self.samplers:
            with self.hold_trait_notifications():
                self.order, self.enabled = _complete(names), list(names)


def _make_slider(name: str, low: float, high: float, step: float) -> Any:
    kind = widgets.IntSlider if BY_NAME[name].kind is int else widgets.FloatSlider
    slider = kind(
        min=low,
        max=high,
        step=step,
        description=name,
        style=_STYLE,
        tooltip=BY_NAME[name].meaning,
        layout={"width": "auto"},
    )
    slider.add_class(f"qwqlab-{name}")
    return slider


def _explain_stages() -> dict[str, str]:
    """Return the settings of each stage and their meanings, by the stage's name."""
    notes: dict[str, str] = {}
    for setting in SETTINGS:
        line = f"{setting.name}: {setting.meaning}"
        notes[setting.stage] = f"{notes[setting.stage]}\n{line}" if setting.stage in notes else line
    return notes


def _complete(samplers: tuple[str, ...]) -> list[str]:
    """Return the samplers, then the rest of llama.cpp's default order."""
    return [*samplers, *(name for name in DEFAULT_ORDER if name not in samplers)]
