"""A chat template to edit: the prompt that it makes, its tokens, and what a model does with it."""

from __future__ import annotations

import html

import ipywidgets as widgets

from ..errors import QwqlabError
from ..models import TEMPLATES, Conversation, explain_template, read_template, render
from ..plots import STOPS, mark_names, name_token
from ..sampling import PRESETS, Engine, Run, Thinking, is_forced, split_thinking
from .base import (
    HALVES,
    Show,
    Throttle,
    make_panel,
    make_row,
    make_seed_field,
    show_text,
)
from .engines import EnginePanel
from .texts import TextField, list_prompts

OWN = "the model's own"


def preview(engine: Engine, template: str, conversation: Conversation) -> str:
    """Return the prompt that a template makes of a conversation for this model.

    Many templates use the model's bos_token and eos_token, so they get those that it has. Raise
    ChatError if the template does not render.
    """
    ids = {"bos_token": engine.info.tokenizer.bos, "eos_token": engine.info.tokenizer.eos}
    specials = {
        name: engine.model.show(token)
        for name, token in ids.items()
        if token is not None and token < engine.model.n_vocab
    }
    return render(template, conversation, variables=specials)


def describe_split(run: Run, split: Thinking) -> str:
    """Return a sentence: where the thinking began, whether it ended, and how the run ended."""
    where = {"prompt": "The prompt opened the thinking", "text": "The model opened its thinking"}
    opened = where.get(split.opened_by or "", "Nothing opened a thinking")
    if split.opened_by is None:
        closed = "yet a closing tag came" if split.closed else "so all of it is the answer"
    else:
        closed = "and the model closed it" if split.closed else "and the model did not close it"
    return f"{opened}, {closed}. The run: {STOPS[run.stop]}, {len(run.tokens)} tokens."


class ThinkPanel(EnginePanel):
    """A template to edit, with the prompt and the tokens that it makes, and Generate and Stop.

    `models.render`, `Engine.generate` and `split_thinking` give the same without a page. `shown` is
    the prompt on the page, None if the template does not render; `run` and `split` are those of the
    last run.
    """

    def __init__(
        self,
        engine: Engine,
        question: str,
        seed: int = 3407,
        n_predict: int = 200,
    ) -> None:
        super().__init__(engine, "Generate", "let the model go on from here")
        self.sampling, self.n_predict = PRESETS["official"], n_predict
        self.shown: str | None = None
        self.run: Run | None = None
        self.split: Thinking | None = None
        self._make_widgets(question, seed)
        self._try(self.template.value, self.conversation)()

    @property
    def conversation(self) -> Conversation:
        """The conversation of the fields."""
        return Conversation.ask(self.question.value, self.system.value)

    def _make_widgets(self, question: str, seed: int) -> None:
        self.template = TextField(
            "template", self._list_templates(), self._look, chooser="start from", rows=16
        )
        self.system = widgets.Text(
            description="system", placeholder="none", layout={"width": "99%"}
        )
        self.question = TextField(
            "user", list_prompts(question), self._look, chooser="prompts", rows=2
        )
        self.seed = make_seed_field(seed)
        self.words, self.prompt = widgets.HTML(), widgets.HTML()
        self.tokens, self.outcome = widgets.HTML(), widgets.HTML()
        self.thinking, self.answer = widgets.HTML(), widgets.HTML()
        self.template.field.add_class("qwqlab-template")
        self.prompt.add_class("qwqlab-prompt")
        self.system.observe(lambda _: self._look(), "value")
        fields = (self.template, self.question)
        (choice, template), (prompts, asked) = ((each.choice, each.field) for each in fields)
        left = widgets.VBox([self.models, choice, template, self.system, prompts, asked])
        right = widgets.VBox([self.words, self.prompt, self.tokens])
        buttons = make_row([self.run_button, self.stop_button, self.seed])
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

    def _list_templates(self) -> dict[str, str]:
        templates = {name: read_template(name) for name in TEMPLATES}
        own = self.engine.info.chat_template
        return templates if own is None else {**templates, OWN: own}

    def _show_engine(self) -> None:
        self.template.offer(self._list_templates())
        self._try(self.template.value, self.conversation)()

    def _look(self) -> None:
        """Show the prompt that the fields make now, as soon as the reader pauses."""
        template, conversation = self.template.value, self.conversation
        self._latest.submit(lambda: self._try(template, conversation))

    def _try(self, template: str, conversation: Conversation) -> Show:
        try:
            prompt = preview(self.engine, template, conversation)
        except QwqlabError as error:
            problem = str(error)
            return lambda: self._show(template, None, problem)
        return lambda: self._show(template, prompt)

    def _show(self, template: str, prompt: str | None, problem: str = "") -> None:
        self.shown = prompt
        self._say(problem)
        if prompt is None:
            self.words.value, self.tokens.value = "<b>There is no prompt.</b>", ""
            self.prompt.value = show_text("", 240, "the prompt")
            return
        tokens = self.engine.model.tokenize(prompt)
        inside = is_forced(prompt)
        ends = "It ends inside the thinking." if inside else "It leaves the tag to the model."
        earlier = self.run is not None and self.run.request.prompt != prompt
        below = " What stands below was made of an earlier prompt." if earlier else ""
        self.words.value = html.escape(
            f"{explain_template(template)} The prompt has {len(tokens)} tokens. {ends}{below}"
        )
        self.prompt.value = show_text(prompt, 240, "the prompt")
        self.tokens.value = self._list_tokens(tokens)

    def _list_tokens(self, tokens: list[int]) -> str:
        cells = "".join(
            '<span style="display:inline-block;border:1px solid #999;margin:1px;padding:0 3px">'
            f"{html.escape(name_token(self.engine.model.show(token)))} "
            f"<small>{token}</small></span>"
            for token in tokens
        )
        return (
            "<details open><summary>tokens, each with its id</summary>"
            '<div style="line-height:1.5;max-height:150px;overflow-y:auto" tabindex="0" '
            f'role="group" aria-label="tokens of the prompt">{cells}</div></details>'
        )

    def _work(self) -> None:
        self.run = None
        template = self.template.value
        prompt = preview(self.engine, template, self.conversation)
        self._show(template, prompt)
        self.outcome.value = ""
        forced, written, throttle = is_forced(prompt), "", Throttle()

        def show(_index: int, _token: int, text: str) -> None:
            nonlocal written
            written += text
            self._check_stop()
            if throttle.ready():
                self._write(split_thinking(written, forced))

        seed = self.seed.value
        self.run = self.engine.generate(prompt, self.sampling, seed, self.n_predict, show)
        self.split = split_thinking(self.run.text, forced)
        self._write(self.split)
        if self.shown is not None:
            self._show(self.template.value, self.shown)  # they may be others by now
        self.outcome.value = mark_names(describe_split(self.run, self.split))

    def _write(self, split: Thinking) -> None:
        for box, name in ((self.thinking, "thinking"), (self.answer, "answer")):
            text = show_text(getattr(split, name), 200, name, follow=True)
            box.value = f"<b>{name}</b>{text}"
