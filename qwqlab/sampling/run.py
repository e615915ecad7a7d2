"""The two values that flow through the lab: what was asked for, and what came out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import SettingError
from ..llamacpp import INT_MAX
from .sampling import Sampling
from .settings import check_seed


@dataclass(frozen=True)
class Request:
    """One sequence to generate.

    prompt is taken as it is, special tokens included; sampling states every value (start from
    `engine.sampling` for those that the GGUF brings); label is your own name for the request (the
    arm of an experiment) and doesn't change the run. Raise SettingError for a prompt that is no
    text, for what is no Sampling, and for a seed or n_predict that llama.cpp would read as
    something else.
    """

    prompt: str
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 3407
    n_predict: int = 256
    label: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise SettingError(
                f"prompt={self.prompt!r} is not a text; give a str (of a conversation, `render` "
                "makes one)"
            )
        if not isinstance(self.sampling, Sampling):
            raise SettingError(
                f"sampling={self.sampling!r} is not a Sampling; give Sampling(...), or one of "
                "PRESETS, such as PRESETS['article']"
            )
        check_seed(self.seed)
        if not isinstance(self.n_predict, int) or not -1 <= self.n_predict <= INT_MAX:
            raise SettingError(
                f"n_predict={self.n_predict!r} is out of range; give a whole number, -1 (no limit) "
                f"to {INT_MAX}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_dict` is the inverse."""
        return {**asdict(self), "sampling": self.sampling.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Request:
        """Return the request that `to_dict` described."""
        return cls(**{**values, "sampling": Sampling.from_dict(values["sampling"])})


@dataclass(frozen=True)
class Run:
    """One finished sequence.

    tokens:  generated token ids, the end token included when the model drew one.
    text:    the tokens as text, special tokens not rendered (as llama-completion prints it).
    stop:    "end" (the model drew an end token), "length" (n_predict reached), "context" (the
             context is full) or "stopped" (on request).
    ranks:   for each token, how many tokens had a higher raw logit (0: the most likely one).
    escapes: steps whose token is outside the raw nucleus: what `top_k;top_p` would leave of
             the model's own distribution, before penalties and temperature.
    seconds: from the first decode that held this sequence to its last token, shared with
             whatever else was in the batch.
    """

    request: Request
    n_prompt: int
    tokens: tuple[int, ...]
    text: str
    stop: str
    ranks: tuple[int, ...]
    escapes: tuple[int, ...]
    seconds: float

    @property
    def runaway(self) -> bool:
        """Whether the run hit its limit with no end token."""
        return self.stop in ("length", "context")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_dict` is the inverse."""
        return {**asdict(self), "request": self.request.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Run:
        """Return the run that `to_dict` described."""
        sequences = {key: tuple(values[key]) for key in ("tokens", "ranks", "escapes")}
        return cls(**{**values, **sequences, "request": Request.from_dict(values["request"])})
