"""A panel that runs a model, and changes to another one that is on this machine."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from .. import paths
from ..models import check_room, inspect, list_local, model_path
from ..sampling import Engine
from .base import Latest, Panel

CONTEXT = 2048  # tokens of cache that must fit beside a model


class EnginePanel(Panel):
    """A panel that runs an engine, and a chooser of models, `models`.

    Stop ends the runs; `_latest` takes what a move asks for. The panel closes the engines that it
    opened itself, and not the one that it was given.
    """

    def __init__(self, engine: Engine, run: str, tooltip: str) -> None:
        super().__init__(run, tooltip)
        self.engine = self._given = engine
        self._latest = Latest(self._guard)
        self.models = widgets.Dropdown(
            options=list_models(engine),
            value=engine.path,
            description="model",
            tooltip="the models on this machine",
            layout={"width": "auto"},
        )
        self.models.observe(self._choose_model, "value")

    def wait(self, timeout: float | None = 60.0) -> bool:
        """Wait for the work in the background, and return whether it ended in time."""
        return super().wait(timeout) and self._latest.wait(timeout)

    def stop(self) -> None:
        """End the runs; their text so far stays."""
        super().stop()
        if self.busy:
            self.engine.stop()

    def _check_stop(self) -> None:
        """Stop the engine if Stop was pressed before it had begun: call this at each token."""
        if self._stopping.is_set():
            self.engine.stop()

    def _choose_model(self, change: Any) -> None:
        if change["new"] == self.engine.path:
            return
        if self.busy:
            self.models.value = self.engine.path  # and `_begin` says why
        self._begin(partial(self._open, change["new"]))

    def _open(self, path: str) -> None:
        """Change to the model in a file; if that fails, stay with the one that there is."""
        left = None
        self.status.value = "Opening the model …"
        try:
            engine = self._given if path == self._given.path else open_model(path)
            self.engine, left = engine, self.engine
            self._latest.wait(None)
            self._say("")
            try:
                self._show_engine()
            except BaseException:
                self.engine, left = left, engine
                raise
        finally:
            self.models.value = self.engine.path
            if left not in (None, self._given):
                left.close()

    def _show_engine(self) -> None:
        """Show what the panel shows with the engine that it has now."""


def list_models(engine: Engine) -> list[tuple[str, str]]:
    """Return name and path of every GGUF that can be chosen, the one that is open among them.

    These are the catalog's models on this machine and the other files in models_dir(), such as
    those that `qwqlab import` took in.
    """
    entries = (entry for entry in list_local() if entry.format == "gguf")
    named = {str(model_path(entry.name)): entry.name for entry in entries}
    for path in (*sorted(paths.models_dir().glob("*.gguf")), Path(engine.path)):
        named.setdefault(str(path), path.stem)
    return [(name, path) for path, name in named.items()]


def open_model(path: str) -> Engine:
    """Return an engine of a model file, loaded as llama.cpp would.

    Raise ModelFileError for a model that memory has no room for, and what `Engine` raises.
    """
    check_room(inspect(path), CONTEXT)
    return Engine(path)
