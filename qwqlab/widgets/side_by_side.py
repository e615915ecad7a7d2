"""Two settings side by side: the same prompt and seed, both texts as they are written, and Stop."""

from __future__ import annotations

import html
from collections.abc import Callable

import ipywidgets as widgets

from ..experiments import CHATML, PAIRS, Pair, measure
from ..llamacpp import INT_MAX
from ..plots import STOPS, mark_names, show_run
from ..sampling import Engine, Request, Run, Sampling, command_of
from .base import (
    COMMAND_WIDTH,
    HALVES,
    Throttle,
    make_button,
    make_command_field,
    make_panel,
    make_row,
    make_seed_field,
    show_text,
    show_warnings,
)
from .controls import SamplingControls
from .engines import EnginePanel
from .texts import TextField, list_prompts

_PROSE = "line-height:1.4;margin:.2em 0"
_BATCHED = (
    "With this model a run may differ from its command: here the arithmetic depends on the width "
    "of the batch."
)
_EARLIER = "The text below was made by other settings than these; Run makes it anew."


class SideBySide(EnginePanel):
    """Two columns, a Sampling each, for one prompt and one seed, with Run and Stop.

    It opens with a pair, and has those of `PAIRS` to choose from; both sides can be edited. A
    column warns of settings without effect, streams the text, then marks it and lists its measures,
    and shows the command that reproduces the run. `runs` are the two runs of the last press of Run.
    `engine.run(pair.requests())` does the same without a page.
    """

    def __init__(self, engine: Engine, pair: Pair = PAIRS[0]) -> None:
        super().__init__(engine, "Run", "run both settings")
        self.runs: list[Run | None] = [None, None]
        self._pair, self._pairs = pair, {each.name: each for each in (pair, *PAIRS)}
        self.pair = widgets.Dropdown(
            options=list(self._pairs), description="pair", layout={"width": "auto"}
        )
        self.prompt = TextField(
            "prompt", self._list_prompts(), self._show_settings, chooser="prompts", rows=3
        )
        self.seed = make_seed_field(pair.seed)
        self.limit = widgets.BoundedIntText(
            pair.n_predict, min=1, max=INT_MAX, description="tokens", layout={"width": "180px"}
        )
        self.look_for, self.note = widgets.HTML(), widgets.HTML()
        self.sides = [_Side(sampling, self._show_settings) for sampling in pair.samplings]
        self._show_settings()
        self.pair.observe(lambda _: self._choose_pair(), "value")
        for field in (self.seed, self.limit):
            field.observe(lambda _: self._show_settings(), "value")
        columns = [side.parts for side in self.sides]
        grid = [part for row in zip(*columns, strict=True) for part in row]
        self.box = make_panel(
            [
                make_row([self.pair, self.prompt.choice, self.models]),
                self.look_for,
                self.prompt.field,
                make_row([self.run_button, self.stop_button, self.seed, self.limit, self.note]),
                self.status,
                widgets.GridBox(grid, layout=HALVES),
            ],
            "qwqlab-side-by-side",
        )

    def requests(self) -> list[Request]:
        """Return what Run will ask for."""
        prompt, seed, n_predict = self.prompt.value, self.seed.value, self.limit.value
        return [
            Request(prompt, side.controls.sampling, seed, n_predict, name)
            for side, name in zip(self.sides, self._pair.names, strict=True)
        ]

    def _list_prompts(self) -> dict[str, str]:
        return list_prompts(self._pair.prompt, CHATML)

    def _choose_pair(self) -> None:
        self._pair = pair = self._pairs[self.pair.value]
        self.seed.value, self.limit.value = pair.seed, pair.n_predict
        for side, sampling in zip(self.sides, pair.samplings, strict=True):
            side.controls.set(sampling)
            side.clear()
        self.prompt.value = pair.prompt
        self.prompt.offer(self._list_prompts())
        self._show_settings()

    def _show_settings(self) -> None:
        """Show what the widgets are set to now: titles, warnings and commands."""
        self._guard(self._draw_settings)

    def _draw_settings(self) -> None:
        look_for = mark_names(self._pair.look_for)
        self.look_for.value = f'<div style="{_PROSE}">{look_for}</div>'
        self.note.value = "" if self.engine.width_independent else _BATCHED
        for side, request, own in zip(
            self.sides, self.requests(), self._pair.samplings, strict=True
        ):
            edited = "" if request.sampling == own else ", edited"
            side.describe(request, edited)
            side.command.value = command_of(request, self.engine).line(width=COMMAND_WIDTH // 2)

    def _show_engine(self) -> None:
        for side in self.sides:
            side.clear()
        self._draw_settings()

    def _work(self) -> None:
        written, throttle, requests = ["", ""], Throttle(), self.requests()

        def show(index: int, _token: int, text: str) -> None:
            written[index] += text
            self._check_stop()
            if throttle.ready():
                for side, so_far in zip(self.sides, written, strict=True):
                    side.stream(so_far)

        for side in self.sides:
            side.clear()
        self.runs = [None, None]
        for index, ended in self.engine.run(requests, width=2, on_token=show):
            self.runs[index] = ended
        for side, run in zip(self.sides, self.runs, strict=True):
            side.show(run, self.engine)
        self._draw_settings()  # which may be others by now


class _Side:
    """One column: its settings, folded away until they are asked for, and what came of them."""

    def __init__(self, sampling: Sampling, on_change: Callable[[], None]) -> None:
        self.name = ""
        self._run: Run | None = None  # whose text is shown
        self.head, self.warning = widgets.HTML(), widgets.HTML()
        self.text, self.measures = widgets.HTML(), widgets.HTML()
        self.text.add_class("qwqlab-stream")
        self.command = make_command_field()
        self.controls = SamplingControls(sampling, on_change)
        self.edit = make_button("edit", self._fold, "preset, order and numbers of this side")
        self._fold()
        settings = widgets.VBox([self.edit, self.controls.box])
        settings.add_class("qwqlab-settings")  # a group, named by its button
        self.parts = self.head, settings, self.warning, self.text, self.measures, self.command

    def describe(self, request: Request, edited: str) -> None:
        """Name the column by the request; warn of what has no effect, and of an earlier text."""
        self.name, sampling = request.label, request.sampling
        self.head.value = (
            f"<div style='{_PROSE}'><b>{html.escape(self.name)}{edited}</b><br>"
            f"<code style='white-space:normal'>{'; '.join(sampling.chain()[:-1])}</code><br>"
            f"repeat_penalty {sampling.repeat_penalty:g}, temp {sampling.temp:g}, "
            f"min_p {sampling.min_p:g}, dry_multiplier {sampling.dry_multiplier:g}</div>"
        )
        earlier = self._run is not None and self._run.request != request
        self.warning.value = show_warnings(sampling.inert(), "No effect")
        self.warning.value += show_warnings([_EARLIER] if earlier else [])
        self.edit.description = f"edit {self.name}"
        self.command.description = f"reproduce {self.name} with"

    def clear(self) -> None:
        self._run = None
        self.text.value = self.measures.value = ""

    def stream(self, text: str) -> None:
        self.text.value = show_text(text, 420, f"text of {self.name}", follow=True)

    def show(self, run: Run | None, engine: Engine) -> None:
        """Show a run that has ended, with its marks and its measures."""
        if run is None or not run.tokens:
            self.text.value = "Stopped before its first token."
            return
        self._run = run
        self.text.value = show_run(run, engine, title=run.request.label).html
        lines = "".join(
            f"<li>{html.escape(name)}: {html.escape(value)}</li>"
            for name, value in summarize_run(run).items()
        )
        self.measures.value = f'<ul style="{_PROSE}">{lines}</ul>'

    def _fold(self) -> None:
        shown = self.controls.box.layout.display != "none"
        self.controls.box.layout.display = "none" if shown else ""


def summarize_run(run: Run) -> dict[str, str]:
    """Return a run's code, loop, end, escapes and speed, in words."""
    found, n = measure(run), len(run.tokens)
    loop = f"from token {found.loop_start} on, {found.loop_repeats:g} times"
    return {
        "code": "valid" if found.valid_code else f"not valid, {found.why_invalid}",
        "loop": loop if found.loop else "none",
        "end": STOPS[run.stop] + (" (a runaway)" if found.runaway else ""),
        "escapes": f"{len(run.escapes)} of {n} tokens",
        "speed": f"{n / run.seconds:.0f} tokens a second, beside the other run",
    }
