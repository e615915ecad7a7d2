"""A field for a text, with a chooser that fills it: prompts, questions and templates."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets

from .. import paths

OWN = "the panel's own"
EDITED = "(edited)"


class TextField:
    """A `field` to edit a text in, and a `choice` of named texts that fill it.

    `value` is the text, and the choice names it. on_change is called, without arguments, when it
    has changed.
    """

    def __init__(
        self,
        label: str,
        texts: Mapping[str, str],
        on_change: Callable[[], None],
        *,
        chooser: str,
        rows: int,
    ) -> None:
        self._texts, self._on_change = dict(texts), on_change
        first = next(iter(texts))
        self.choice = widgets.Dropdown(
            options=[*texts, EDITED], value=first, description=chooser, layout={"width": "auto"}
        )
        self.field = widgets.Textarea(
            texts[first], description=label, rows=rows, layout={"width": "auto"}
        )
        self.choice.observe(self._choose, "value")
        self.field.observe(lambda _: self._change(), "value")

    @property
    def value(self) -> str:
        """The text."""
        return str(self.field.value)

    @value.setter
    def value(self, text: str) -> None:
        self.field.value = text

    def offer(self, texts: Mapping[str, str]) -> None:
        """Offer other texts; the one in the field stays."""
        self._texts = dict(texts)
        with self.choice.hold_trait_notifications():
            self.choice.options = [*texts, EDITED]
            self.choice.value = self._name()

    def _choose(self, change: Any) -> None:
        if change["new"] in self._texts:
            self.value = self._texts[change["new"]]

    def _change(self) -> None:
        self.choice.value = self._name()
        self._on_change()

    def _name(self) -> str:
        named = (name for name, text in self._texts.items() if text == self.value)
        return next(named, EDITED)


_MOST = 12  # prompts of one kind


def list_prompts(own: str, form: str = "{}") -> dict[str, str]:
    """Return the panel's own prompt and the first of data/prompts, put into a form, by name."""
    prompts = {OWN: own}
    for file in sorted((paths.data_dir() / "prompts").glob("*.json")):
        for prompt in json.loads(file.read_text(encoding="utf-8"))[:_MOST]:
            prompts[f"{file.stem}: {prompt['name']}"] = form.format(prompt["text"])
    return prompts
