"""One figure of each kind that `plots` draws, of small data, for what must hold of all of them."""

from __future__ import annotations

from collections.abc import Callable

from test_plots import ARMS, BROKEN, OTHERS, RUNGS
from test_quant_charts import make_quality
from test_select_modules import make_errors

from qwqlab.experiments import Conduct
from qwqlab.plots import (
    Drawing,
    draw_arms,
    draw_errors,
    draw_heat,
    draw_ladder,
    draw_losses,
    draw_proxies,
    draw_quality,
    draw_stages,
    draw_suspects,
    draw_types,
)
from qwqlab.quant import theory
from qwqlab.sampling import Engine, Probe, Request
from qwqlab.stats import HARM, Paired

PROMPT = "<|im_start|>user\nWrite a Python function.<|im_end|>\n<|im_start|>assistant\n"


def stages(engine: Engine) -> Drawing:
    probe = Probe.of(engine, Request(PROMPT, BROKEN, 1, 12))
    return draw_stages(probe.step(min(probe.run.escapes, default=3)), engine)


def suspects() -> Drawing:
    code, loops = Paired("valid code", 48, 39, 24, 20, 5), Paired("loops", 8, 4, 4, 2, 2)
    steady = Paired("loops", 8, 4, 4, 0, 0)
    return draw_suspects(
        [
            Conduct("YaRN", code, loops, 0, 56),
            Conduct("epsilon", Paired("valid code", 48, 39, 39, 0, 0), steady, 56, 56),
        ],
        HARM,
    )


def types() -> Drawing:
    rows = [("nf4", 4.5, 0.0088, 0.0085), ("Q4_0", 4.5, 0.0079, 0.0074), ("Q8_0", 8.5, 4e-5, 3e-5)]
    return draw_types(rows, [theory.shannon(bits) for _, bits, _, _ in rows])


def quality() -> Drawing:
    kinds = (("naive", 0.0, 0.24, False), ("chosen", 9.0, 0.17, True), ("random", 9.0, 0.22, False))
    return draw_quality([(name, extra, make_quality(kl), own) for name, extra, kl, own in kinds])


FIGURES: dict[str, Callable[[Engine], Drawing]] = {
    "draw_arms": lambda _: draw_arms({"small": ARMS, "large": OTHERS}),
    "draw_errors": lambda _: draw_errors(make_errors(6)),
    "draw_heat": lambda _: draw_heat(make_errors(5)),
    "draw_ladder": lambda _: draw_ladder(RUNGS),
    "draw_losses": lambda _: draw_losses(
        {f"run {n}": [3 - n / 9, 2.1 - n / 8, 1.6 - n / 7] for n in range(7)}
    ),
    "draw_proxies": lambda _: draw_proxies(
        ["one", "two"], [[5, 3, 4, 1, 2], [1, 2, 3, 5, 4]], [0.1, 0.2, 0.4, 0.8, 1.6]
    ),
    "draw_quality": lambda _: quality(),
    "draw_stages": stages,
    "draw_suspects": lambda _: suspects(),
    "draw_types": lambda _: types(),
}
