"""The exercises of 05_think_token."""

from __future__ import annotations

from collections.abc import Callable

from ...models import Conversation, read_template, render, render_many
from ..exercise import exercise, expect


@exercise(
    "predict",
    solution='answer = ""',
    after="The program has nothing to show. How often that happens is counted further down.",
    wrong=[
        ('answer = "2 and 2 is"', "it is still thinking"),
        ("answer = None", "an answer is a text"),
        ('answer = "4"', "was not written"),
    ],
)
def cut_off(answer: str) -> None:
    """
    The prompt ended in `<think>`, the model wrote `2 and 2 is` and was cut off. Its program knows
    that the prompt was forced. Which text does it show as the model's answer? Answer with a
    string, before the next cell shows it.
    """
    expect(isinstance(answer, str), "an answer is a text, if only an empty one")
    hint = "the prompt opened the thinking and nothing closed it, so it is still thinking"
    expect(answer.strip() != "2 and 2 is", hint)
    expect(answer == "", f"{answer!r} was not written: only what follows </think> is the answer")


@exercise(
    "change",
    solution=r"""
        quiet = models.read_template("with-think").replace(
            r"assistant\n<think>\n", r"assistant\n<think>\n\n</think>\n\n"
        )
    """,
    after="In the template's text the newlines are written as a backslash and an n.",
    wrong=[
        ('quiet = models.read_template("with-think")', "the thinking is opened and not closed"),
        ('quiet = models.read_template("without-think")', "the thinking is not opened"),
        (
            r"quiet = models.read_template('without-think') + '{{ \"<think>\n\n</think>\n\n\" }}'",
            "must stay as it was",
        ),
    ],
)
def kept_from_thinking(quiet: str) -> None:
    r"""
    Some models can be kept from thinking: the template opens the thinking and closes it at once,
    so that the prompt ends in `<think>\n\n</think>\n\n`. Change
    `models.read_template("with-think")` so that it does, and so that a conversation which asks for
    no answer stays as it was.
    """
    ask = Conversation.ask("What is 2 + 2?")
    answered = Conversation(ask.messages, add_generation_prompt=False)
    asking, silent = render_many(quiet, [ask, answered])
    tail = repr(asking[-34:])
    expect("<think>" in asking, f"the prompt ends in {tail}: the thinking is not opened")
    hint = f"the prompt ends in {tail}: the thinking is opened and not closed"
    expect("</think>" in asking, hint)
    hint = "a conversation that asks for no answer must stay as it was: mind the template's `if`"
    expect(silent == render(read_template("with-think"), answered), hint)
    hint = f"the prompt ends in {tail}: a newline lacks, or is one too many"
    expect(asking.endswith("assistant\n<think>\n\n</think>\n\n"), hint)


TRIED = {
    "2 and 2 is 4.\n</think>\n\n4": (True, "a closing tag that nothing opened is a proof"),
    "<think>\n2 and 2 is 4.\n</think>\n\n4": (False, "the model opened it by itself"),
    "\n<think>2 and 2 is 4.</think>4": (False, "white space may come before the opening tag"),
    "4": (False, "without any tag nothing is proved"),
}


@exercise(
    "build",
    solution="""
        def was_forced(text):
            split = sampling.split_thinking(text)
            return split.closed and split.opened_by is None
    """,
    after="""
        A closing tag that nothing in the text opened. A text that was cut off before its closing
        tag proves nothing, and neither does one that only speaks of the tag: keep the prompt with
        the text.
    """,
    wrong=[
        ('was_forced = lambda text: "</think>" in text', "the model opened it by itself"),
        ('was_forced = lambda text: text[0] != "<"', "white space may come before"),
        ('was_forced = lambda text: "<think>" not in text', "without any tag nothing is proved"),
        ("was_forced = lambda text: False", "a closing tag that nothing opened"),
    ],
)
def forced_by_the_text_alone(was_forced: Callable[[str], bool]) -> None:
    """
    A log holds only what models wrote. Build `was_forced(text)`: True where the text alone proves
    that its prompt had opened the thinking, and False where it does not.
    `sampling.split_thinking` may help.
    """
    for text, (truth, why) in TRIED.items():
        expect(bool(was_forced(text)) == truth, f"look at {text!r} again: {why}")
