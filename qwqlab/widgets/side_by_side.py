"""Two settings side by side: the same prompt and seed, both texts as they are written, and Stop."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets

from ..experiments import measure
from ..plots import STOPS, show_run
from ..sampling import Engine, Request, Run, Sampling, command_of
from .base import (
    COMMAND_WIDTH,
    HALVES,
    EnginePanel,
    Throttle,
    make_command_field,
    make_panel,
    make_row,
    make_seed_field,
    show_text,
    show_warnings,
)

_BATCHED = (
    "With this model a run may differ from its command: here the arithmetic depends on the width "
    "of the batch."
)


class SideBySide(EnginePanel):
    """Two columns, a Sampling each, with Run and Stop.

    A column warns of settings without effect, streams the text, then marks it and lists its
    measures, and shows the command that reproduces the run. `runs` are the two runs of the last
    press of Run. `Engine.run` does the same without a page.
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
        super().__init__(engine, "Run", "run both settings")
        self.prompt, self.n_predict, self.names = prompt, n_predict, names
        self.samplings = sampling_a, sampling_b
        self.runs: list[Run | None] = [None, None]
        self.seed = make_seed_field(seed)
        self.texts = [widgets.HTML(), widgets.HTML()]
        self.measures = [widgets.HTML(), widgets.HTML()]
        self.commands = [make_command_field(name) for name in names]
        for text in self.texts:
            text.add_class("qwqlab-stream")
        self.seed.observe(lambda _: self._write_commands(), "value")
        self._write_commands()
        heads = [self._make_head(i) for i in (0, 1)]
        warnings = [widgets.HTML(show_warnings(s.inert(), "No effect")) for s in self.samplings]
        rows = zip(heads, warnings, self.texts, self.measures, self.commands, strict=True)
        grid = widgets.GridBox(
            [cell for row in zip(*rows, strict=True) for cell in row], layout=HALVES
        )
        note = widgets.HTML("" if engine.width_independent else _BATCHED)
        buttons = make_row([self.run_button, self.stop_button, self.seed, note])
        self.box = make_panel([buttons, self.status, grid], "qwqlab-side-by-side")

    def requests(self) -> list[Request]:
        """Return what Run will ask for."""
        return [
            Request(self.prompt, sampling, self.seed.value, self.n_predict, name)
            for sampling, name in zip(self.samplings, self.names, strict=True)
        ]

    def _work(self) -> None:
        texts, throttle = ["", ""], Throttle()

        def show(index: int, _token: int, text: str) -> None:
            texts[index] += text
            self._check_stop()
            if throttle.ready():
                for box, written, name in zip(self.texts, texts, self.names, strict=True):
                    box.value = show_text(written, 420, f"text of {name}", follow=True)

        for box in (*self.texts, *self.measures):
            box.value = ""
        self.runs = [None, None]
        for index, ended in self.engine.run(self.requests(), width=2, on_token=show):
            self.runs[index] = ended
        for i, run in enumerate(self.runs):
            self._show(i, run)

    def _show(self, index: int, run: Run | None) -> None:
        if run is None or not run.tokens:
            self.texts[index].value = "Stopped before its first token."
            return
        self.texts[index].value = show_run(run, self.engine, title=self.names[index]).html
        lines = "".join(
            f"<li>{html.escape(name)}: {html.escape(value)}</li>"
            for name, value in summarize_run(run).items()
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

    def _write_commands(self) -> None:
        for request, field in zip(self.requests(), self.commands, strict=True):
            field.value = command_of(request, self.engine).line(width=COMMAND_WIDTH // 2)


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
