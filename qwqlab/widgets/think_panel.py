"""A chat template to edit: the prompt that it makes, its tokens, and what a model does with it."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from .. import chat
from ..engine import Engine
from ..errors import QwqlabError
from ..plots.drawing import mark_names, name_token
from ..plots.run_text import STOPS
from ..records import Run
from ..rendering import Conversation
from ..sampling import PRESETS, Sampling
from ..thinking import Thinking
from .access import make_panel
from .page import HALVES, Panel, make_button, show_warnings, status_box
from .think_run import Preview, preview, think_aloud
from .workers import Latest, Worker

OWN = "the model's own"
EDITED = "(edited)"
SHOWN = 300  # tokens in the list
BOX = (
    "white-space:pre-wrap;overflow-wrap:anywhere;font-family:monospace;font-size:13px;"
    "line-height:1.4;overflow-y:auto;border:1px solid #999;padding:.4em;"
)
STACKED = "display:flex;flex-direction:column-reverse;"


class ThinkPanel(Panel):
    """A template to edit, with the prompt and the tokens that it makes, and Generate and Stop.

    It shows what `preview` and `think_aloud` give, which work without it. `shown` is the preview
    on the page, None where the template does not render; `run` and `split` are the last run's.
    """

    def __init__(
        self,
        engine: Engine,
        question: str,
        template: str = "with-think",
        sampling: Sampling = PRESETS["official"],
        seed: int = 3407,
        n_predict: int = 200,
    ) -> None:
        self.engine, self.sampling, self.n_predict = engine, sampling, n_predict
        self.shown: Preview | None = None
        self.run: Run | None = None
        self.split: Thinking | None = None
        self._templates = {name: chat.template(name) for name in chat.KNOWN}
        if engine.info.chat_template is not None:
            self._templates[OWN] = engine.info.chat_template
        self._worker, self._latest = Worker(self._say), Latest(self._say)
        self._stopping = False
        self._make_widgets(question, template, seed)
        self._show(*self._try(self.template.value, self.conversation))

    @property
    def conversation(self) -> Conversation:
        """What the fields say."""
        return Conversation.ask(self.question.value, self.system.value)

    def wait(self, timeout: float = 60.0) -> bool:
        """Wait for the work in the background; whether it came to its end."""
        return self._latest.wait(timeout) and self._worker.wait(timeout)

    def start(self) -> None:
        """Generate from the prompt that the fields make now, in the background."""
        self._say("")
        if not self._worker.busy:
            self._stopping = False
        self._worker.start(self._generate)

    def stop(self) -> None:
        """End the run; what it has written stays."""
        if self._worker.busy:
            self._stopping = True
            self.engine.stop()

    def _make_widgets(self, question: str, template: str, seed: int) -> None:
        wide = {"width": "auto"}
        self.choice = widgets.Dropdown(
            options=[*self._templates, EDITED],
            value=template,
            description="start from",
            layout=wide,
        )
        self.template = widgets.Textarea(
            self._templates[template], description="template", rows=16, layout=wide
        )
        self.system = widgets.Text(description="system", placeholder="none", layout=wide)
        self.question = widgets.Textarea(question, description="user", rows=2, layout=wide)
        self.seed = widgets.BoundedIntText(
            seed, min=0, max=2**31 - 1, description="seed", layout={"width": "180px"}
        )
        self.generate_button = make_button("Generate", self.start, "let the model go on from here")
        self.stop_button = make_button("Stop", self.stop, "end the run")
        self.stop_button.disabled = True
        self.status, self.words, self.prompt = status_box(), widgets.HTML(), widgets.HTML()
        self.tokens, self.outcome = widgets.HTML(), widgets.HTML()
        self.thinking, self.answer = widgets.HTML(), widgets.HTML()
        self.template.add_class("qwqlab-template")
        self.prompt.add_class("qwqlab-prompt")
        self.choice.observe(self._choose, "value")
        for field in (self.template, self.system, self.question):
            field.observe(lambda _: self._look(), "value")
        left = widgets.VBox([self.choice, self.template, self.system, self.question])
        right = widgets.VBox([self.words, self.prompt, self.tokens])
        row = [self.generate_button, self.stop_button, self.seed]
        buttons = widgets.HBox(row, layout={"flex_flow": "row wrap"})
        self.box = make_panel(
            [
                widgets.GridBox([left, right], layout=HALVES),
                self.status,
                buttons,
                widgets.GridBox([self.thinking, self.answer], layout=HALVES),
                self.outcome,
            ],
            "qwqlab-think",
        )

    def _choose(self, change: Any) -> None:
        if change["new"] in self._templates:
            self.template.value = self._templates[change["new"]]

    def _look(self) -> None:
        """Show the prompt of what the fields say now, as soon as the reader pauses."""
        template, conversation = self.template.value, self.conversation
        named = (name for name, text in self._templates.items() if text == template)
        self.choice.value = next(named, EDITED)

        def job() -> Callable[[], None]:
            found = self._try(template, conversation)
            return lambda: self._show(*found)

        self._latest.submit(job)

    def _try(self, template: str, conversation: Conversation) -> tuple[Preview | None, str]:
        try:
            return preview(self.engine, template, conversation), ""
        except QwqlabError as error:
            return None, str(error)

    def _show(self, found: Preview | None, problem: str) -> None:
        self.shown = found
        self._say(problem)
        if found is None:
            self.words.value, self.tokens.value = "<b>There is no prompt.</b>", ""
            self.prompt.value = _box("", 240, "the prompt")
            return
        ends = "It ends inside the thinking." if found.forced else "It leaves the tag to the model."
        self.words.value = html.escape(
            f"{found.description} The prompt has {len(found.tokens)} tokens. {ends}"
        )
        self.prompt.value = _box(html.escape(found.prompt), 240, "the prompt")
        self.tokens.value = self._list_tokens(found.tokens)

    def _list_tokens(self, tokens: tuple[int, ...]) -> str:
        cells = "".join(
            '<span style="display:inline-block;border:1px solid #999;margin:1px;padding:0 3px">'
            f"{html.escape(name_token(self.engine.model.show(token)))} "
            f"<small>{token}</small></span>"
            for token in tokens[-SHOWN:]
        )
        head = f"the last {SHOWN} tokens" if len(tokens) > SHOWN else "tokens, each with its id"
        return (
            f"<details open><summary>{head}</summary>"
            '<div style="line-height:1.5;max-height:150px;overflow-y:auto" tabindex="0" '
            f'role="group" aria-label="tokens of the prompt">{cells}</div></details>'
        )

    def _generate(self) -> None:
        found = preview(self.engine, self.template.value, self.conversation)
        self.generate_button.disabled, self.stop_button.disabled = True, False
        try:
            self._show(found, "")
            self.outcome.value = ""
            self.run, self.split = think_aloud(
                self.engine,
                found.prompt,
                self.sampling,
                self.seed.value,
                self.n_predict,
                self._stream,
            )
            self._write(self.split)
            self.outcome.value = mark_names(describe_split(self.run, self.split))
        finally:
            self.generate_button.disabled, self.stop_button.disabled = False, True

    def _stream(self, split: Thinking) -> None:
        # A stop that came before the engine had begun is said again.
        if self._stopping:
            self.engine.stop()
        self._write(split)

    def _write(self, split: Thinking) -> None:
        for box, name in ((self.thinking, "thinking"), (self.answer, "answer")):
            text = html.escape(getattr(split, name))
            # Stacked from the bottom, so that the end of a long text stays in sight.
            kept = f'<div style="margin-bottom:auto">{text}</div>'
            box.value = f"<b>{name}</b>{_box(kept, 200, name, STACKED)}"

    def _say(self, sentence: str) -> None:
        self.status.value = show_warnings([sentence] if sentence else [])


def describe_split(run: Run, split: Thinking) -> str:
    """Where the thinking began, whether it ended, and how the run did, in a sentence."""
    where = {"prompt": "The prompt opened the thinking", "text": "The model opened its thinking"}
    opened = where.get(split.opened_by or "", "Nothing opened a thinking")
    if split.opened_by is None:
        closed = "yet a closing tag came" if split.closed else "so all of it is the answer"
    else:
        closed = "and the model closed it" if split.closed else "and the model did not close it"
    return f"{opened}, {closed}. The run: {STOPS[run.stop]}, {len(run.tokens)} tokens."


def _box(content: str, height: int, label: str, more: str = "") -> str:
    return (
        f'<div style="{BOX}{more}height:{height}px" tabindex="0" role="group" '
        f'aria-label="{label}">{content}</div>'
    )
