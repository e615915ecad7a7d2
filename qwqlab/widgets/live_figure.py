"""A figure on a page that is changed in place, and takes the width that there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anywidget
import plotly.graph_objects as go


class LiveFigure(go.FigureWidget):  # type: ignore[misc]
    """A FigureWidget whose state is what it shows, with a `FitWidth` beside it.

    Plotly sends changes and does not keep the state up to date, so that a page which starts from
    the state (a box that is shown after a change, a page that is loaded again) would start from
    the figure as it was made.
    """

    def __init__(self, traces: Sequence[Any]) -> None:
        super().__init__(list(traces))
        self._config = {"responsive": True}

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        """The widget's state; all of it, where no key is named, is that of now."""
        state = super().get_state(key, drop_defaults)
        if key is None and "_data" in vars(self):  # not yet there while the widget is opened
            now = {"_widget_data": self._data, "_widget_layout": self._layout_obj._props}
            for name, value in now.items():
                state[name] = self.trait_metadata(name, "to_json")(value, self)
        return state


class FitWidth(anywidget.AnyWidget):
    """An empty box that tells the live figures beside it when there is more or less room.

    A FigureWidget measures its place before it is on the page, and again only when the window is
    resized; but JupyterLab changes a cell's width with its side bars too.
    """

    _esm = """
    function render({ el }) {
      let width = 0;
      const watcher = new ResizeObserver(([entry]) => {
        const now = Math.round(entry.contentRect.width);
        if (now > 0 && now !== width) window.dispatchEvent(new Event("resize"));
        width = now;
      });
      el.style.width = "100%";
      watcher.observe(el);
      return () => watcher.disconnect();
    }
    export default { render };
    """
