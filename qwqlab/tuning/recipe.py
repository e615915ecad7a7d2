"""The article's recipe for fine-tuning, as data: what any engine that trains is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import SettingError
from ..llamacpp import INT_MAX, check_number

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_LEAST = {
    "rank": 1, "alpha": 1, "batch": 1, "accumulation": 1, "learning_rate": 0, "warm_up": 0,
    "steps": 1, "weight_decay": 0, "seed": 0, "max_tokens": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """Unsloth's settings for QwQ-32B, under the names that they have in the article.

    rank, alpha: of the LoRA adapters, on all seven linear modules of a layer. batch sequences are
    run at once, and accumulation of these make a step. learning_rate rises for warm_up steps, then
    falls in a line to 0 at the last of `steps`. max_tokens: longer examples are cut.
    checkpointing: activations are computed again rather than kept; slower, with less memory.
    Raise SettingError for a number out of its range or modules that no layer has.
    """

    rank: int = 32
    alpha: int = 32
    modules: tuple[str, ...] = LINEARS
    batch: int = 2
    accumulation: int = 4
    learning_rate: float = 2e-4
    warm_up: int = 5
    steps: int = 60
    optimiser: str = "adamw_8bit"
    weight_decay: float = 0.01
    seed: int = 3407
    max_tokens: int = 2048
    checkpointing: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "modules", tuple(self.modules))
        for name, least in _LEAST.items():
            check_number(name, getattr(self, name), type(getattr(Recipe, name)), least, INT_MAX)
        unknown = set(self.modules) - set(LINEARS)
        if unknown or not self.modules:
            raise SettingError(f"modules={self.modules!r}: choose from {', '.join(LINEARS)}")

    def with_(self, **changes: Any) -> Recipe:
        """Return a copy with some values changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `Recipe(**values)` is the same recipe."""
        return {**asdict(self), "modules": list(self.modules)}
