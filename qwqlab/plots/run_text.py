"""A run's text with its tokens marked: escapes from the raw nucleus, and where a loop begins."""

from __future__ import annotations

import codecs
import html
from collections.abc import Iterator, Sequence

from ..experiments import RunMetrics, measure
from ..sampling import Engine, Run
from .drawing import BLUE, RUST, VERMILLION, Shown, name_token

STOPS = {
    "end": "the model ended it",
    "length": "cut off at its limit, with no end token",
    "context": "cut off at the end of the context",
    "stopped": "stopped on request",
}
# Two cues beside the colour: a line under an escape, a ruled label where a loop begins.
_ESCAPE = f"background:{VERMILLION}33;border-bottom:2px solid {VERMILLION}"
BREAK = f"background:{RUST};color:white;font-weight:bold;border-bottom:2px solid {RUST}"
_LOOP = "border:1px solid;border-radius:3px;padding:0 .3em;font-size:85%;font-family:sans-serif"
_LOOPING = f"background:{BLUE}26"
_HERE = "background:#ffe066;color:#222;border:1px solid #222;font-weight:bold"
_BEFORE, _AFTER = 300, 120  # characters of the text around a step
_AROUND = (
    "white-space:pre-wrap;font-family:monospace;line-height:1.35;height:7.2em;overflow-y:auto;"
    "border:1px solid #999;padding:.3em;overflow-wrap:anywhere"
)
_BODY = (
    "white-space:pre-wrap;overflow-wrap:anywhere;font-family:var(--jp-code-font-family,monospace);"
    "font-size:13px;line-height:1.45;max-height:420px;overflow-y:auto;border:1px solid #999;"
    "padding:.5em;margin:.3em 0"
)


def show_run(run: Run, engine: Engine, *, breaking: int | None = None, title: str = "") -> Shown:
    """Return a run's text with its escapes marked (in a shell by «guillemets»), below a line that
    explains the marks and how the run ended.

    A loop in which the run ends is shaded, and marked where it begins. breaking: a step to single
    out, such as the token that broke the code.
    """
    found = measure(run)
    head = _tell(run, title, found)
    escapes = set(run.escapes)
    marked, plain = [], []
    for step, piece in enumerate(decode_steps(run, engine)):
        if step == found.loop_start:
            marked.append(f'<span style="{_LOOP}">a loop begins</span><span style="{_LOOPING}">')
            plain.append("[a loop begins]")
        text = html.escape(piece)
        if step in escapes or step == breaking:
            hint = f"token {step}, raw rank {run.ranks[step]} (0 is the most likely)"
            kind = BREAK if step == breaking else _ESCAPE
            control = html.escape(engine.model.show(run.tokens[step]))
            shown = text.replace("\n", "⏎\n") or control
            marked.append(f'<span style="{kind}" title="{hint}">{shown}</span>')
            plain.append(f"«{piece}»")
        else:
            marked.append(text)
            plain.append(piece)
    if found.loop:
        marked.append("</span>")
    name = html.escape(f"text of the run: {title}" if title else "text of the run")
    return Shown(
        f'<div><div style="line-height:1.4">{html.escape(head)}</div><div tabindex="0" '
        f'role="group" aria-label="{name}" style="{_BODY}">{"".join(marked)}</div></div>',
        f"{head}\n{''.join(plain)}",
    )


def show_step(pieces: Sequence[str], step: int, name: str) -> str:
    """Return the HTML of a run's text around one step, whose token is marked.

    pieces: the text of each step, as `decode_steps` gives it. name: what to show for a token
    that completes no text.
    """
    before, after = "".join(pieces[:step]), "".join(pieces[step + 1 :])
    before = before if len(before) <= _BEFORE else f"…{before[-_BEFORE:]}"
    after = after if len(after) <= _AFTER else f"{after[:_AFTER]}…"
    token = pieces[step].replace("\n", "⏎\n") or name_token(name)
    return (
        f'<div style="{_AROUND}" tabindex="0" role="group" aria-label="the run around this step">'
        f"{html.escape(before)}<mark style='{_HERE}'>{html.escape(token)}</mark>"
        f"<span style='opacity:.65'>{html.escape(after)}</span></div>"
    )


def decode_steps(run: Run, engine: Engine) -> Iterator[str]:
    """Yield the text that each token completes: "" for a part of a character or a control token."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in run.tokens:
        yield decoder.decode(engine.model.piece(token))


def _tell(run: Run, title: str, found: RunMetrics) -> str:
    n = len(run.tokens)
    share = f"{100 * len(run.escapes) / n:.1f} %" if n else "none"
    parts = [
        f"{n} tokens in {run.seconds:.1f} s",
        STOPS.get(run.stop, run.stop),
        f"{len(run.escapes)} escapes ({share}), underlined",
    ]
    if found.loop:
        times = f"{found.loop_repeats:g} times"
        parts.append(f"a loop begins at token {found.loop_start} ({times}), shaded")
    return f"{title}: {'; '.join(parts)}." if title else f"{'; '.join(parts)}."
