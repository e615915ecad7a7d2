"""The microscope: any step of a run, stage by stage, under settings that the reader changes."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ipywidgets as widgets

from ..command import Command
from ..engine import Engine
from ..errors import QwqlabError
from ..plots.drawing import mark_names
from ..plots.run_text import decode_steps, show_step
from ..plots.stage_grid import StageGrid, lay_out
from ..plots.stages import make_traces, update
from ..probe import Divergence, Probe
from ..records import Request
from ..sampling import Sampling
from .access import make_panel
from .controls import SamplingControls
from .live_figure import FitWidth, LiveFigure
from .page import (
    COMMAND_WIDTH,
    Panel,
    display_if_possible,
    make_button,
    show_command,
    show_table,
    show_warnings,
    status_box,
)
from .workers import Latest, Throttle, Worker, guard

TOP = 16  # columns: what fits beside the controls


class Microscope(Panel):
    """A run, a step of it, and the settings under which that step is looked at.

    The run is made once, with the request's own Sampling, when the microscope is made; the
    controls then change what the step's stages would have done with the same tokens before, the
    same logits and the same random draw. Run makes a new run with the settings in force.

    It shows what `probe.Probe.step`, `stage_grid.lay_out`, `Sampling.inert` and `command.Command`
    give, which work without it. `grid` is what the chart holds.
    """

    def __init__(self, engine: Engine, request: Request) -> None:
        self.engine = engine
        self.grid: StageGrid | None = None
        self._make_widgets(request.sampling)
        self._worker, self._latest = Worker(self._say), Latest(self._say)
        self._settings: Sampling | None = None
        self._drawing = threading.RLock()
        display_if_possible(self._progress)
        self._make_run(request)
        self._progress.layout.display = "none"
        # The first escape is what most readers come for.
        self.step.value = min(self.probe.run.escapes, default=0)
        self._draw()
        self.step.observe(lambda _: self._look(), "value")

    @property
    def sampling(self) -> Sampling:
        """What the controls say."""
        return self.controls.sampling

    def wait(self, timeout: float = 60.0) -> bool:
        """Wait for the work in the background; whether it came to its end."""
        return self._worker.wait(timeout) and self._latest.wait(timeout)

    def move(self, by: int) -> None:
        """Go that many steps forward or back."""
        self.step.value = min(max(self.step.value + by, 0), self.step.max)

    def find_escape(self, direction: int) -> None:
        """Go to the next (1) or the previous (-1) step whose token the run drew from outside the
        raw nucleus."""
        here = self.step.value
        found = [s for s in self.probe.run.escapes if (s - here) * direction > 0]
        if found:
            self.step.value = min(found) if direction > 0 else max(found)
        else:
            self._say(f"The run has no {'later' if direction > 0 else 'earlier'} escape.")

    def rerun(self) -> None:
        """Make a new run under the controls' settings, in the background."""
        request = replace(self.probe.run.request, sampling=self.sampling)
        self._worker.start(lambda: self._rerun(request))

    def stop(self) -> None:
        """End the run under way."""
        if self._worker.busy:
            self.engine.stop()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        # What the figure became before it was on a page never reached one.
        self.figure.send_state()
        return super()._repr_mimebundle_(**options)

    def _make_widgets(self, sampling: Sampling) -> None:
        self.controls = SamplingControls(sampling, self._look)
        self.step = widgets.IntSlider(description="step", layout={"width": "45%"})
        self.step.add_class("qwqlab-step")
        self._progress = widgets.IntProgress(description="run", layout={"width": "100%"})
        self.figure = LiveFigure(make_traces())
        self.status, self.warning, self.text = status_box(), widgets.HTML(), widgets.HTML()
        self.outcome, self.divergence = widgets.HTML(), widgets.HTML()
        self.summary, self.table = widgets.HTML(), widgets.HTML()
        self.command = show_command()
        self._go = make_button("go to that step", self._go_to_divergence)
        self.buttons = {
            "previous": make_button("◀ step", lambda: self.move(-1)),
            "next": make_button("step ▶", lambda: self.move(1)),
            "previous escape": make_button("◀ escape", lambda: self.find_escape(-1)),
            "next escape": make_button("escape ▶", lambda: self.find_escape(1)),
            "run": make_button("Run again", self.rerun, "a new run with these settings"),
            "stop": make_button("Stop", self.stop, "end the run under way"),
        }
        left = widgets.VBox([self.controls.box], layout={"flex": "0 0 314px"})
        right = widgets.VBox(
            [self.outcome, FitWidth(), self.figure, self.summary, self.table,
             widgets.HBox([self.divergence, self._go])],
            layout={"flex": "1 1 535px", "min_width": "0", "overflow": "hidden"},
        )  # fmt: skip
        children = [
            widgets.HBox([self.step, *self.buttons.values()], layout={"flex_flow": "row wrap"}),
            self.text, self._progress, self.status, self.warning,
            widgets.HBox([left, right], layout={"width": "100%", "flex_flow": "row wrap"}),
            self.command,
        ]  # fmt: skip
        self.box = make_panel(children, "qwqlab-microscope")

    def _make_run(self, request: Request) -> None:
        """Make the probe of a run, and show its first step."""
        self._progress.max, self._progress.value = max(request.n_predict, 1), 0
        probe = make_probe(self.engine, request, self._count)
        if not probe.run.tokens:
            raise QwqlabError("the run was stopped before its first token; press Run again")
        with self._drawing:
            self.probe = probe
            # The pass over the whole run goes on beside the slider, with candidates of its own.
            self._replayer = Probe(self.engine, probe.run, probe.logits)
            self._pieces = list(decode_steps(probe.run, self.engine))
            self._settings = None
            self.step.max = len(probe.run.tokens) - 1
            self._draw()

    def _rerun(self, request: Request) -> None:
        self._say("")
        self._progress.layout.display = ""
        try:
            self._make_run(request)
        finally:
            self._progress.layout.display = "none"

    def _count(self, done: int) -> None:
        self._progress.value = done

    def _say(self, sentence: str) -> None:
        self.status.value = show_warnings([sentence] if sentence else [])

    def _look(self) -> None:
        """Draw what the widgets say now; an error becomes the status line."""
        self._say("")
        guard(self._draw, self._say)

    def _draw(self) -> None:
        # A new run is drawn from its own thread, and a probe is not for two at once.
        with self._drawing:
            self._draw_step(self.step.value, self.sampling)

    def _draw_step(self, step: int, sampling: Sampling) -> None:
        view = self.probe.step(step, sampling)
        run_token = self.probe.run.tokens[step]
        self.grid = lay_out(view, self.engine, TOP, run_token)
        update(self.figure, self.grid)
        self.summary.value = f"<p>{mark_names(self.grid.summary)}</p>"
        self.table.value = show_table(self.grid)
        self.outcome.value = self._tell_outcome(self.grid)
        name = self.engine.model.show(run_token)
        self.text.value = show_step(self._pieces, step, name)
        if sampling != self._settings:
            self._settings = sampling
            self._draw_settings(sampling)

    def _draw_settings(self, sampling: Sampling) -> None:
        run = self.probe.run.request
        self.warning.value = show_warnings(sampling.inert(), "No effect")
        self.command.value = Command(
            sampling, self.engine.loading, self.engine.path, run.prompt, run.seed, run.n_predict
        ).line(width=COMMAND_WIDTH)
        self._go.layout.display = "none"
        self._divergence: Divergence | None = None
        self.divergence.value = "Looking for the first step that these settings would change …"
        replayer = self._replayer
        self._latest.submit(lambda: self._compare(replayer, sampling))

    def _compare(self, replayer: Probe, sampling: Sampling) -> Callable[[], None]:
        found = replayer.first_divergence(sampling)
        return lambda: self._show_divergence(replayer, found)

    def _show_divergence(self, replayer: Probe, found: Divergence | None) -> None:
        self._divergence = found
        if found is None:
            n = len(replayer.run.tokens)
            said = f"These settings draw the same {n} tokens as the run."
        else:
            said = f"These settings part from the run at step {found.step}: {found.why}."
            self._go.layout.display = ""
        self.divergence.value = mark_names(said)

    def _go_to_divergence(self) -> None:
        if self._divergence is not None:
            self.step.value = self._divergence.step

    def _tell_outcome(self, grid: StageGrid) -> str:
        drawn, own = (f"<code>{html.escape(grid.texts[c])}</code>" for c in
                      (grid.drawn, grid.run_token))  # fmt: skip
        same = "the same token" if grid.drawn == grid.run_token else "another token"
        draw = "" if grid.view.draw is None else f", random draw {grid.view.draw:.3f}"
        return f"Drawn here: {drawn}; in the run: {own} ({same}{draw})."


def make_probe(
    engine: Engine, request: Request, on_count: Callable[[int], None] = lambda done: None
) -> Probe:
    """`Probe.of` with a count of the tokens done, at most 20 times a second."""
    kept: dict[int, Any] = {}
    done, throttle = 0, Throttle()

    def count(_index: int, _token: int, _text: str) -> None:
        nonlocal done
        done += 1
        if throttle.ready():
            on_count(done)

    runs = [run for _, run in engine.run([request], 1, count, kept)]
    if not runs:
        raise QwqlabError("the run was stopped before its first token; run it again")
    return Probe(engine, runs[0], kept[0])
