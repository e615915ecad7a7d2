"""Two settings side by side: the same prompt and seed, both texts as they are written, and Stop."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from ..engine import Engine
from ..metrics import measure
from ..plots.run_text import STOPS, show_run
from ..records import Request, Run
from ..replay import command_of
from ..sampling import Sampling
from .access import make_panel
from .page import (
    COMMAND_WIDTH,
    HALVES,
    Panel,
    make_button,
    show_command,
    show_warnings,
    status_box,
)
from .workers import Throttle, Worker, guard

OnText = Callable[[int, str], None]
STREAM = (
    "white-space:pre-wrap;overflow-wrap:anywhere;font-family:monospace;font-size:13px;"
    "line-height:1.45;height:420px;overflow-y:auto;border:1px solid #999;padding:.5em;"
    "display:flex;flex-direction:column-reverse"
)
BATCHED = (
    "Here a run in a batch may part from its command: the arithmetic depends on the batch's width."
)


class SideBySide(Panel):
    """Run and Stop over two columns, one a Sampling.

    Each column has what its settings leave without effect, the text as it grows, then the marked
    text with its measures, and the command that reproduces the run. `runs` holds the two runs of
    the last press of Run. `compare` does the same without a page.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: str,
        sampling_a: Sampling,
        sampling_b: Sampling,
        seed: int = 3407,
        n_predict: int = 400,
        names: tuple[str, str] = ("A", "B"),
    ) -> None:
        self.engine, self.prompt, self.n_predict, self.names = engine, prompt, n_predict, names
        self.samplings = sampling_a, sampling_b
        self.runs: tuple[Run | None, Run | None] = (None, None)
        self.status = status_box()
        self._worker, self._stopping = Worker(self._say), False
        self.seed = widgets.BoundedIntText(
            seed, min=0, max=2**31 - 1, description="seed", layout={"width": "180px"}
        )
        self.run_button = make_button("Run", self.start, "run both settings")
        self.stop_button = make_button("Stop", self.stop, "end both runs at once")
        self.stop_button.disabled = True
        self.texts = [widgets.HTML(), widgets.HTML()]
        self.measures = [widgets.HTML(), widgets.HTML()]
        self.commands = [show_command(name) for name in names]
        for text in self.texts:
            text.add_class("qwqlab-stream")
        self.seed.observe(lambda _: self._show_commands(), "value")
        self._show_commands()
        heads = [self._make_head(i) for i in (0, 1)]
        warnings = [widgets.HTML(show_warnings(s.inert(), "No effect")) for s in self.samplings]
        rows = zip(heads, warnings, self.texts, self.measures, self.commands, strict=True)
        grid = widgets.GridBox(
            [cell for row in zip(*rows, strict=True) for cell in row],
            layout=HALVES,
        )
        note = widgets.HTML("" if engine.width_independent else BATCHED)
        row = [self.run_button, self.stop_button, self.seed, note]
        buttons = widgets.HBox(row, layout={"flex_flow": "row wrap"})
        self.box = make_panel([buttons, self.status, grid], "qwqlab-side-by-side")

    def start(self) -> None:
        """Run both, in the background."""
        self._say("")
        if not self._worker.busy:
            self._stopping = False
        self._worker.start(self._run)

    def stop(self) -> None:
        """End both runs; what they have written stays."""
        if self._worker.busy:
            self._stopping = True
            self.engine.stop()

    def wait(self, timeout: float = 60.0) -> bool:
        """Wait for the runs to end; whether they did."""
        return self._worker.wait(timeout)

    def requests(self) -> list[Request]:
        """What Run will ask for."""
        return [
            Request(self.prompt, sampling, self.seed.value, self.n_predict, name)
            for sampling, name in zip(self.samplings, self.names, strict=True)
        ]

    def _run(self) -> None:
        texts, throttle = ["", ""], Throttle()

        def show(index: int, text: str) -> None:
            texts[index] += text
            # A stop that came before the engine had begun is said again.
            if self._stopping:
                self.engine.stop()
            if throttle.ready():
                for box, *shown in zip(self.texts, texts, self.names, strict=True):
                    box.value = _show_stream(*shown)

        self.run_button.disabled, self.stop_button.disabled = True, False
        try:
            for box in (*self.texts, *self.measures):
                box.value = ""
            found = compare(self.engine, self.requests(), show)
            self.runs = found[0], found[1]
            for i, run in enumerate(self.runs):
                self._show(i, run)
        finally:
            self.run_button.disabled, self.stop_button.disabled = False, True

    def _show(self, index: int, run: Run | None) -> None:
        if run is None or not run.tokens:
            self.texts[index].value = "Stopped before its first token."
            return
        self.texts[index].value = show_run(run, self.engine, title=self.names[index]).html
        lines = "".join(
            f"<li>{html.escape(name)}: {html.escape(value)}</li>"
            for name, value in describe(run).items()
        )
        self.measures[index].value = f'<ul style="margin:.2em 0;line-height:1.4">{lines}</ul>'

    def _make_head(self, index: int) -> Any:
        sampling = self.samplings[index]
        return widgets.HTML(
            f"<b>{html.escape(self.names[index])}</b><br>"
            f"<code style='white-space:normal'>{'; '.join(sampling.chain()[:-1])}</code><br>"
            f"repeat_penalty {sampling.repeat_penalty:g}, temp {sampling.temp:g}, "
            f"min_p {sampling.min_p:g}, dry_multiplier {sampling.dry_multiplier:g}"
        )

    def _show_commands(self) -> None:
        guard(self._write_commands, self._say)

    def _write_commands(self) -> None:
        for request, field in zip(self.requests(), self.commands, strict=True):
            field.value = command_of(request, self.engine).line(width=COMMAND_WIDTH // 2)

    def _say(self, sentence: str) -> None:
        self.status.value = show_warnings([sentence] if sentence else [])


def compare(
    engine: Engine, requests: list[Request], on_text: OnText = lambda index, text: None
) -> list[Run | None]:
    """Run requests beside each other; on_text gets an index and the text that came.

    None stands where a run was stopped before it began.
    """
    found: list[Run | None] = [None] * len(requests)
    runs = engine.run(
        requests, width=len(requests), on_token=lambda index, _token, text: on_text(index, text)
    )
    for index, run in runs:
        found[index] = run
    return found


def describe(run: Run) -> dict[str, str]:
    """What a reader wants to know of a run, in words: code, loop, end, escapes, speed."""
    found, n = measure(run), len(run.tokens)
    loop = f"from token {found.loop_start} on, {found.loop_repeats:g} times"
    return {
        "code": "valid" if found.valid_code else f"not valid, {found.why_invalid}",
        "loop": loop if found.loop else "none",
        "end": STOPS[run.stop] + (" (a runaway)" if found.runaway else ""),
        "escapes": f"{len(run.escapes)} of {n} tokens",
        "speed": f"{n / run.seconds:.0f} tokens a second, beside the other run",
    }


def _show_stream(text: str, name: str) -> str:
    # The outer box stacks from the bottom, so that the end of a long text stays in sight.
    return (
        f'<div style="{STREAM}" tabindex="0" role="group" aria-label="text of {html.escape(name)}">'
        f'<div style="margin-bottom:auto">{html.escape(text)}</div></div>'
    )
