"""What quantising costs a model's predictions: perplexity, KL divergence, agreement.

Every token of a text's blocks that llama-perplexity would score is scored: in blocks of 512 the
second half. A variant is the reference with the weights of some modules decoded from few bits:
what bitsandbytes multiplies with in float32, without loading the model again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .. import paths
from ..errors import SettingError
from .checkpoint import HEAD, Checkpoint, Linear, check_room, list_linears, orient
from .codecs import Codec, find_codec
from .journal import Journal
from .skip_list import resolve_skip_list

N_TOKENS = 4096
Interval = tuple[float, float]


@dataclass(frozen=True)
class Quality:
    """A variant's predictions against the reference's, each with its 95 % interval over blocks.

    perplexity:      exp of the mean surprise of a token.
    kl_mean, kl_p99: the Kullback-Leibler divergence from the reference in nats a token: mean, and
                     what 99 of 100 tokens stay below.
    top1_agreement:  share of tokens whose most likely next token is the reference's.
    block_surprise, block_kl: the means of each block, for comparing variants block by block.
    """

    perplexity: float
    perplexity_interval: Interval
    kl_mean: float
    kl_mean_interval: Interval
    kl_p99: float
    kl_p99_interval: Interval
    top1_agreement: float
    top1_agreement_interval: Interval
    n_tokens: int
    block_surprise: tuple[float, ...]
    block_kl: tuple[float, ...]

    @property
    def n_blocks(self) -> int:
        return len(self.block_kl)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, `n_blocks` among them."""
        return {**asdict(self), "n_blocks": self.n_blocks}


class Reference:
    """A model's predictions of a text, to compare variants of the model with.

    model:  of transformers, in float32. blocks: token ids, n_blocks x n_ctx; at least two blocks,
    or there is no interval. The log-probabilities are kept: 4 bytes for each scored token and each
    token of the vocabulary, 50 MB for a block of 512 with SmolLM2.
    """

    def __init__(self, model: Any, blocks: torch.Tensor) -> None:
        if len(blocks) < 2 or blocks.shape[1] < 8:
            raise SettingError(
                f"{blocks.numel()} tokens make {len(blocks)} block of text; an interval needs two "
                "or more. Give a longer text, or take more tokens of it."
            )
        self.model = model
        self.blocks = blocks.to(model.device)
        self._logs = [predict(model, block) for block in self.blocks]

    def compare(self) -> Quality:
        """Return how the model as it now is does against what it was.

        Unchanged it has no divergence, and its own perplexity.
        """
        return _sum_up([self.score(place) for place in range(len(self.blocks))])

    def score(self, place: int) -> torch.Tensor:
        """Return surprise, KL divergence and agreement of a block: 3 x n_scored, float64."""
        block, reference = self.blocks[place], self._logs[place]
        variant = predict(self.model, block)
        follows = block[scored_places(len(block)) + 1]
        surprise = -variant.gather(1, follows[:, None])[:, 0]
        divergence = (reference.exp() * (reference - variant)).sum(1, dtype=torch.float64)
        same = reference.argmax(1) == variant.argmax(1)
        return torch.stack([surprise.double(), divergence.clamp(min=0), same.double()])


def scored_places(n_ctx: int) -> torch.Tensor:
    """Return the places in a block whose next token is scored, as in llama-perplexity.

    >>> scored_places(8)
    tensor([4, 5, 6])
    """
    return torch.arange(n_ctx // 2, n_ctx - 1)


def predict(model: Any, block: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities of what follows each scored token of a block: n_scored x n_vocab."""
    with torch.inference_mode():
        logits = model(
            block[None], use_cache=False, logits_to_keep=scored_places(len(block))
        ).logits
        return torch.log_softmax(logits[0].float(), -1)


def _sum_up(scored: Sequence[torch.Tensor]) -> Quality:
    statistics: dict[str, Callable[[torch.Tensor], float]] = {
        "perplexity": lambda each: math.exp(float(each[0].mean())),
        "kl_mean": lambda each: float(each[1].mean()),
        "kl_p99": lambda each: float(each[1].quantile(0.99)),
        "top1_agreement": lambda each: float(each[2].mean()),
    }
    found: dict[str, Any] = {}
    for name, statistic in statistics.items():
        found[name], found[f"{name}_interval"] = jackknife(scored, statistic)
    return Quality(
        **found,
        n_tokens=sum(each.shape[1] for each in scored),
        block_surprise=tuple(float(each[0].mean()) for each in scored),
        block_kl=tuple(float(each[1].mean()) for each in scored),
    )


def jackknife(
    blocks: Sequence[torch.Tensor], statistic: Callable[[torch.Tensor], float]
) -> tuple[float, Interval]:
    """Return a statistic of all blocks and its 95 % interval, leaving out one block at a time.

    Tokens of one block depend on each other, blocks hardly do, so the blocks are what is counted:
    Student's t with one degree of freedom less than there are blocks (Efron and Tibshirani 1993,
    chapter 11). The interval stays within the range of a share or of a divergence.
    """
    from scipy.stats import t

    n = len(blocks)
    value = statistic(torch.cat(list(blocks), 1))
    without = [
        statistic(torch.cat([*blocks[:place], *blocks[place + 1 :]], 1)) for place in range(n)
    ]
    mean = sum(without) / n
    error = math.sqrt((n - 1) / n * sum((each - mean) ** 2 for each in without))
    half = float(t.ppf(0.975, n - 1)) * error
    return value, (max(0.0, value - half), value + half)


def compare_blocks(first: Quality, second: Quality) -> tuple[float, Interval]:
    """Return by how much the first variant's mean KL is above the second's, and its 95 % interval.

    Both were measured on the same text, so it goes block by block: that a block is hard for both
    cancels.
    """
    from scipy.stats import ttest_rel

    low, high = map(float, ttest_rel(first.block_kl, second.block_kl).confidence_interval())
    return (low + high) / 2, (low, high)


class Decoded:
    """The weights of a model's linear modules as a codec gives them back, float32.

    All modules but the head are decoded once and kept: as much memory again as their weights.
    head: decode the head as well, as a skip list without it would; an embedding that shares its
    weights keeps them.
    """

    def __init__(self, model: Any, codec: Codec, head: bool = False) -> None:
        self.model = model
        self.linears = tuple(each for each in list_linears(model) if head or not each.is_head)
        self._weights: dict[str, torch.Tensor] = {}
        self.n_bytes: dict[str, int] = {}
        for linear in self.linears:
            module = model.get_submodule(linear.name)
            encoded = codec.encode(orient(module, module.weight.detach()))
            self._weights[linear.name] = orient(module, encoded.rows(0, linear.n_out))
            self.n_bytes[linear.name] = encoded.n_bytes

    @contextmanager
    def swapped(self, keep: Sequence[str] = (), only: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield the model with its weights decoded, but those of `keep`; or only those of `only`.

        Afterwards it has its own weights again.
        """
        chosen = [each.name for each in self.linears] if only is None else only
        modules = {name: self.model.get_submodule(name) for name in chosen if name not in keep}
        own = {name: module.weight for name, module in modules.items()}
        try:
            for name, module in modules.items():
                # A new parameter, not new data: an embedding may share the old one.
                module.weight = torch.nn.Parameter(self._weights[name], requires_grad=False)
            yield self.model
        finally:
            for name, module in modules.items():
                module.weight = own[name]


def evaluate(
    name: str | Path,
    codec: str | None = None,
    skip: Sequence[str] | None = None,
    text: str | Path | None = None,
    n_tokens: int = N_TOKENS,
) -> tuple[Quality, list[str]]:
    """Return a model's predictions of a text in a codec, and the modules that a skip list kept.

    codec: None is the model as it is. text: by default the lab's data/texts/evaluation.txt.
    Raise SettingError for entries of the skip list that fit no module.
    """
    checkpoint = Checkpoint(name)
    check_room(2 * checkpoint.n_bytes, f"Evaluating {checkpoint.title}")
    path = Path(text or paths.data_dir() / "texts" / "evaluation.txt")
    blocks = checkpoint.read_blocks(path, n_tokens)
    chosen = None if codec is None else find_codec(codec)
    model = checkpoint.load()
    resolved = resolve_skip_list(skip, list_linears(model))
    if resolved.dead:
        raise SettingError(f"{resolved.dead[0]!r} in the skip list fits no linear module")
    reference = Reference(model, blocks)
    if chosen is None:
        return reference.compare(), [each.name for each in list_linears(model)]
    with Decoded(model, chosen, HEAD not in resolved.kept).swapped(keep=resolved.kept):
        return reference.compare(), list(resolved.kept)


def measure_alone(
    reference: Reference,
    decoded: Decoded,
    linears: Sequence[Linear] | None = None,
    on_module: Callable[[int, int, str, float], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    key: str = "",
) -> dict[str, float]:
    """Return the mean KL divergence when one module alone is quantised, for each by its name.

    This is the harm that a proxy such as the error of a module's weights would have to predict.
    Layers before the module give what they gave, so they are run once for all: half the work.
    on_module gets the number, how many there are, the name and the divergence. stop is asked
    between two modules; those that are known by then are returned.

    key: names model, codec and text; if it is given, each divergence is kept in models_dir() and
    not measured again (`Checkpoint.identify` is the model's part).
    """
    linears = decoded.linears if linears is None else linears
    with torch.inference_mode():
        states = [
            reference.model(
                block[None], use_cache=False, output_hidden_states=True, logits_to_keep=1
            ).hidden_states
            for block in reference.blocks
        ]
    journal = Journal("alone", json.dumps([key, reference.blocks.tolist()]) if key else "")
    known = {row["name"]: row["kl"] for row in journal.rows}
    found: dict[str, float] = {}
    for linear in linears:
        kl = known.get(linear.name)
        if kl is None:
            kl = _measure_one(linear, reference, decoded, states)
            journal.add({"name": linear.name, "kl": kl})
        found[linear.name] = kl
        if on_module:
            on_module(len(found), len(linears), linear.name, kl)
        if stop():
            break
    return found


def _measure_one(
    linear: Linear,
    reference: Reference,
    decoded: Decoded,
    states: Sequence[Sequence[torch.Tensor]],
) -> float:
    """Return the mean divergence. states: what each layer is given, block by block."""
    before = reference.model.model.layers[: linear.layer or 0]
    scored = []
    with decoded.swapped(only=[linear.name]):
        for place, given in enumerate(states):
            with _giving(given[len(before)], before):
                scored.append(reference.score(place))
    return float(torch.cat(scored, 1)[1].mean())


@contextmanager
def _giving(output: torch.Tensor, layers: Sequence[Any]) -> Iterator[None]:
    """Within the block these layers give the output, and compute nothing."""
    for layer in layers:
        layer.forward = lambda *_, **__: output
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
