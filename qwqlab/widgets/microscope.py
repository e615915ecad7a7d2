"""The microscope: any step of a run, stage by stage, under settings that the reader changes."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go

from ..errors import QwqlabError
from ..experiments import CHATML
from ..plots import StageGrid, decode_steps, lay_out, mark_names, plot_grid, show_step
from ..sampling import Detour, Engine, Probe, Request, Sampling, command_of
from .base import (
    COMMAND_WIDTH,
    LiveFigure,
    Throttle,
    display_if_possible,
    make_button,
    make_command_field,
    make_panel,
    make_row,
    show_warnings,
)
from .controls import SamplingControls
from .engines import EnginePanel
from .texts import TextField, list_prompts

TOP = 16  # columns: what fits beside the controls


class Microscope(EnginePanel):
    """A run, a step of it, and the settings under which that step is looked at.

    The request is run once, with its own Sampling, when the microscope is made. The controls then
    show what each stage would have done at this step, given the same tokens so far, the same logits
    and the same random draw. *Run again* makes a new run, of the prompt in the field and with the
    settings of the controls; so does the choice of another model.

    `Probe.step`, `lay_out`, `Sampling.inert` and `command_of` give the same without a page. `grid`
    is what the chart holds.
    """

    def __init__(self, engine: Engine, request: Request) -> None:
        super().__init__(engine, "Run again", "a new run with these settings")
        self.grid: StageGrid | None = None
        self._make_widgets(request)
        self._settings: Sampling | None = None
        self._drawing = threading.RLock()
        display_if_possible(self._progress)
        self._make_run(request)
        self._progress.layout.display = "none"
        # Most readers want to see the first escape.
        self.step.value = min(self.probe.run.escapes, default=0)
        self._draw()
        self.step.observe(lambda _: self.redraw(), "value")

    @property
    def sampling(self) -> Sampling:
        """The settings of the controls."""
        return self.controls.sampling

    def move(self, by: int) -> None:
        """Go that many steps forward or back."""
        self.step.value = min(max(self.step.value + by, 0), self.step.max)

    def find_escape(self, direction: int) -> None:
        """Go to the next (1) or the previous (-1) step whose token lies outside the raw nucleus."""
        here = self.step.value
        found = [s for s in self.probe.run.escapes if (s - here) * direction > 0]
        if found:
            self.step.value = min(found) if direction > 0 else max(found)
        else:
            self._say(f"The run has no {'later' if direction > 0 else 'earlier'} escape.")

    def redraw(self) -> None:
        """Draw what the widgets are set to now."""
        self._say("")
        self._guard(self._draw)

    def _make_widgets(self, request: Request) -> None:
        self.controls = SamplingControls(request.sampling, self.redraw)
        prompts = list_prompts(request.prompt, CHATML)
        self.prompt = TextField("prompt", prompts, lambda: None, chooser="prompts", rows=3)
        self.step = widgets.IntSlider(description="step", layout={"width": "45%"})
        self.step.add_class("qwqlab-step")
        self._progress = widgets.IntProgress(description="run", layout={"width": "100%"})
        self.figure = LiveFigure(go.Figure())
        self.warning, self.text = widgets.HTML(), widgets.HTML()
        self.outcome, self.words, self.detour = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.command = make_command_field()
        self.detour_button = make_button("go to that step", self._go_to_detour)
        self.buttons = {
            "previous": make_button("◀ step", lambda: self.move(-1)),
            "next": make_button("step ▶", lambda: self.move(1)),
            "previous escape": make_button("◀ escape", lambda: self.find_escape(-1)),
            "next escape": make_button("escape ▶", lambda: self.find_escape(1)),
            "run": self.run_button,
            "stop": self.stop_button,
        }
        left = widgets.VBox([self.controls.box], layout={"flex": "0 0 314px"})
        right = widgets.VBox(
            [self.outcome, self.figure, self.words, make_row([self.detour, self.detour_button])],
            layout={"flex": "1 1 535px", "min_width": "0", "overflow": "hidden"},
        )
        children = [
            make_row([self.models, self.prompt.choice]),
            self.prompt.field,
            make_row([self.step, *self.buttons.values()]),
            self.text, self._progress, self.status, self.warning,
            widgets.HBox([left, right], layout={"width": "100%", "flex_flow": "row wrap"}),
            self.command,
        ]  # fmt: skip
        self.box = make_panel(children, "qwqlab-microscope")

    def _make_run(self, request: Request) -> None:
        """Make the probe of a run, and show the step that the slider is at."""
        self._progress.max, self._progress.value = max(request.n_predict, 1), 0
        probe = self._make_probe(request)
        with self._drawing:
            self.probe = probe
            # A second probe, since looking for the detour goes on while the slider moves.
            self._replayer = Probe(self.engine, probe.run, probe.logits)
            self._pieces = list(decode_steps(probe.run, self.engine))
            self._settings = None
            self.step.max = len(probe.run.tokens) - 1
            self._draw()

    def _make_probe(self, request: Request) -> Probe:
        """Do what `Probe.of` does, with a bar that follows the tokens."""
        kept: dict[int, Any] = {}
        done, throttle = 0, Throttle()

        def count(_index: int, _token: int, _text: str) -> None:
            nonlocal done
            done += 1
            self._check_stop()
            if throttle.ready():
                self._progress.value = done

        runs = [run for _, run in self.engine.run([request], 1, count, kept)]
        if not runs or not runs[0].tokens:
            raise QwqlabError("the run was stopped before its first token; run it again")
        return Probe(self.engine, runs[0], kept[0])

    def _show_engine(self) -> None:
        self._work()

    def _work(self) -> None:
        request = replace(self.probe.run.request, prompt=self.prompt.value, sampling=self.sampling)
        self._progress.layout.display = ""
        try:
            self._make_run(request)
        finally:
            self._progress.layout.display = "none"

    def _draw(self) -> None:
        # A new run is drawn from its own thread, and a probe serves one thread at a time.
        with self._drawing:
            step, sampling = self.step.value, self.sampling
            run_token = self.probe.run.tokens[step]
            grid = lay_out(self.probe.step(step, sampling), self.engine, TOP, run_token)
            self.grid, drawing = grid, plot_grid(grid)
            self.figure.show(drawing.figure)
            self.words.value = drawing.words_html()
            self.outcome.value = _tell_outcome(grid)
            self.text.value = show_step(self._pieces, step, self.engine.model.show(run_token))
            if sampling != self._settings:
                self._settings = sampling
                self._draw_settings(sampling)

    def _draw_settings(self, sampling: Sampling) -> None:
        request = replace(self.probe.run.request, sampling=sampling)
        self.warning.value = show_warnings(sampling.inert(), "No effect")
        self.command.value = command_of(request, self.engine).line(width=COMMAND_WIDTH)
        self.detour_button.layout.display = "none"
        self._detour: Detour | None = None
        self.detour.value = "Looking for the first step that these settings would change …"
        replayer = self._replayer
        self._latest.submit(lambda: self._compare(replayer, sampling))

    def _compare(self, replayer: Probe, sampling: Sampling) -> Callable[[], None]:
        found = replayer.find_detour(sampling)
        return lambda: self._show_detour(replayer, found)

    def _show_detour(self, replayer: Probe, found: Detour | None) -> None:
        self._detour = found
        if found is None:
            n = len(replayer.run.tokens)
            said = f"These settings draw the same {n} tokens as the run."
        else:
            said = f"These settings part from the run at step {found.step}: {found.why}."
            self.detour_button.layout.display = ""
        self.detour.value = mark_names(said)

    def _go_to_detour(self) -> None:
        if self._detour is not None:
            self.step.value = self._detour.step


def _tell_outcome(grid: StageGrid) -> str:
    columns = grid.drawn, grid.run_token
    drawn, own = (f"<code>{html.escape(grid.texts[column])}</code>" for column in columns)
    same = "the same token" if grid.drawn == grid.run_token else "another token"
    draw = "" if grid.view.draw is None else f", random draw {grid.view.draw:.3f}"
    return f"Drawn here: {drawn}; in the run: {own} ({same}{draw})."
