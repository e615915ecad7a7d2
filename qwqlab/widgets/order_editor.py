"""The order of the samplers as a list on the page, rearranged by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ..errors import SettingError
from ..settings import DEFAULT_ORDER, SETTINGS, check_order

_HERE = Path(__file__).resolve().parent


class OrderEditor(anywidget.AnyWidget):
    """Rows that are dragged, moved with Alt and an arrow key, or by their buttons.

    order holds every name in the order shown, enabled the names that are switched on, in any
    order; both may be set from Python. `samplers` is what a Sampling takes.
    """

    _esm = (_HERE / "order_editor.js").read_text(encoding="utf-8")
    _css = (_HERE / "order_editor.css").read_text(encoding="utf-8")
    order = traitlets.List(traitlets.Unicode()).tag(sync=True)
    enabled = traitlets.List(traitlets.Unicode()).tag(sync=True)
    notes = traitlets.Dict().tag(sync=True)

    def __init__(self, samplers: Iterable[str] = DEFAULT_ORDER, **traits: Any) -> None:
        samplers = check_order(samplers)
        super().__init__(
            order=_complete(samplers), enabled=list(samplers), notes=describe_stages(), **traits
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

    @traitlets.validate("order", "enabled")
    def _check(self, proposal: Any) -> list[str]:
        try:
            return list(check_order(proposal["value"]))
        except SettingError as error:
            raise traitlets.TraitError(str(error)) from None


def describe_stages() -> dict[str, str]:
    """What each stage does, by its name: its settings and their meanings."""
    notes: dict[str, str] = {}
    for setting in SETTINGS:
        line = f"{setting.name}: {setting.meaning}"
        notes[setting.stage] = f"{notes[setting.stage]}\n{line}" if setting.stage in notes else line
    return notes


def _complete(samplers: tuple[str, ...]) -> list[str]:
    """The samplers, and after them those of llama.cpp's default order that they leave out."""
    return [*samplers, *(name for name in DEFAULT_ORDER if name not in samplers)]
