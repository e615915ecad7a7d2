"""The suspects: overrides reach llama.cpp's graph, and the verdicts say what the counts allow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwqlab import paths
from qwqlab.errors import SettingError, ToolchainError
from qwqlab.experiments import LOADING, Conduct, list_suspects, suspects
from qwqlab.experiments.suspects import Suspect, merge
from qwqlab.llamacpp import Loading
from qwqlab.models import (
    LlamaTokenizer,
    Yarn,
    compute_tiny_logits,
    gguf,
    make_tiny_weights,
    qwq,
    run_tiny_model,
    write_tiny_model,
)
from qwqlab.models.tiny_qwen2 import N_VOCAB, Array
from qwqlab.plots import draw_suspects
from qwqlab.stats import HARM, Paired

TOKENS = [int(token) for token in np.random.default_rng(1).integers(0, N_VOCAB, 150)]


@pytest.fixture(scope="module")
def weights() -> dict[str, Array]:
    return make_tiny_weights()


@pytest.fixture(scope="module")
def tiny(weights: dict[str, Array], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file, removed at once after the last test: it has 275 MB."""
    path = write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf", weights)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def plain(weights: dict[str, Array]) -> Array:
    """The logits without any override."""
    return compute_tiny_logits(weights, TOKENS)


@pytest.mark.parametrize(
    ("equations", "flags"),
    [
        ({}, {}),
        ({"epsilon": 0.1}, {}),
        ({"yarn": Yarn()}, {"rope_scale": 4, "yarn_orig_ctx": 32_768}),
        pytest.param({"epsilon": 1e-6}, {}, marks=pytest.mark.nightly),
        pytest.param(
            {"yarn": Yarn(original=64)},
            {"rope_scale": 4, "yarn_orig_ctx": 64},
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            {"yarn": Yarn(16, 1000)},
            {"rope_scale": 16, "yarn_orig_ctx": 1000},
            marks=pytest.mark.nightly,
        ),
    ],
    ids=["as it is", "epsilon", "QwQ's YaRN", "small epsilon", "YaRN from 64", "YaRN times 16"],
)
def test_llama_cpp_gives_what_the_equations_say(
    equations: Any, flags: Any, tiny: Path, weights: dict[str, Array], plain: Array
) -> None:
    loading = Loading(rope_scaling="yarn", **flags) if flags else Loading()
    if "epsilon" in equations:
        key = "qwen2.attention.layer_norm_rms_epsilon"
        loading = Loading(override_kv=(f"{key}=float:{equations['epsilon']}",))
    logits = run_tiny_model(tiny, TOKENS, loading)
    expected = compute_tiny_logits(weights, TOKENS, **equations) if equations else plain
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
    if equations:  # and it is a change that rounding cannot make
        assert np.abs(logits - plain).max() > 100 * np.abs(logits - expected).max()


def test_the_tiny_file_is_a_qwen2_with_qwqs_heads(tiny: Path) -> None:
    info = gguf.inspect(tiny)
    assert (info.architecture, info.n_ctx_train) == ("qwen2", 131_072)
    assert info.metadata["qwen2.attention.head_count"] == 40
    assert info.metadata["qwen2.attention.head_count_kv"] == 8
    assert info.metadata["qwen2.embedding_length"] == 5120


def test_the_suspects_are_the_opposite_of_what_the_file_says(tiny: Path, model_path: Path) -> None:
    yarn, epsilon, control = list_suspects(gguf.inspect(tiny))
    assert yarn.flags() == [
        "--rope-scaling", "yarn", "--rope-scale", "4.0", "--yarn-orig-ctx", "32768"
    ]  # fmt: skip
    key = "qwen2.attention.layer_norm_rms_epsilon"
    assert epsilon.flags() == ["--override-kv", f"{key}=float:1e-06"]
    assert "rope" not in "".join(control.flags()) and "override" not in "".join(control.flags())
    yarn, epsilon, _ = list_suspects(gguf.inspect(model_path))
    assert yarn.loading.yarn_orig_ctx == 8192
    assert epsilon.loading.override_kv == ("llama.attention.layer_norm_rms_epsilon=float:1e-06",)


def test_a_file_without_a_context_length_is_refused(tmp_path: Path) -> None:
    class Silent:
        architecture, path, n_ctx_train, rms_norm_eps = "llama", "x.gguf", None, 1e-5

    with pytest.raises(SettingError, match=r"x\.gguf gives no context length"):
        list_suspects(Silent())  # type: ignore[arg-type]


def test_merging_keeps_what_the_second_leaves_alone() -> None:
    merged = merge(LOADING, Loading(rope_scaling="yarn", rope_scale=4))
    assert (merged.flash_attn, merged.cache_type_k, merged.rope_scaling) == ("on", "q8_0", "yarn")
    assert merge(LOADING, Loading()) == LOADING


@pytest.mark.parametrize(
    ("n", "lost", "gained", "verdict"),
    [
        (48, 0, 0, "acquitted"),
        (48, 3, 3, "acquitted"),
        (48, 20, 5, "convicted"),
        (48, 0, 30, "convicted"),
        (48, 9, 6, "undecided"),
        (8, 0, 1, "undecided"),
        (4, 0, 0, "undecided"),
    ],
)
def test_a_verdict_needs_an_interval_that_allows_it(
    n: int, lost: int, gained: int, verdict: str
) -> None:
    count = Paired("valid code", n, 20, 20 - lost + gained, lost, gained)
    low, high = count.interval
    assert low <= (gained - lost) / n <= high
    assert count.verdict == verdict


def test_the_figure_says_each_verdict_and_its_interval() -> None:
    code, loops = Paired("valid code", 48, 39, 24, 20, 5), Paired("loops", 8, 4, 4, 2, 2)
    same, steady = Paired("valid code", 48, 39, 39, 0, 0), Paired("loops", 8, 4, 4, 0, 0)
    found = [Conduct("YaRN", code, loops, 0, 56), Conduct("<b>", same, steady, 56, 56)]
    drawing = draw_suspects(found, HARM)
    assert drawing.title == "Flipping YaRN changes the rate of valid programs"
    assert (
        "YaRN, valid code: 39 of 48 before, 24 after (-48 to -12 points), convicted"
        in drawing.summary
    )
    assert list(drawing.table["verdict"]) == ["convicted", "undecided", "acquitted", "acquitted"]
    assert "<b>," not in str(drawing.figure.data[0].y)


def test_the_labs_text_is_long_enough_for_every_model_of_the_notebook(model_path: Path) -> None:
    text = (paths.data_dir() / "texts" / "evaluation.txt").read_text(encoding="utf-8")
    qwq.build_qwq()
    for name in ("qwq-32b", str(model_path)):
        (ids,) = LlamaTokenizer(name).encode([text])
        assert len(ids) >= max(max(2, n_chunks) * n_ctx for n_ctx, n_chunks in suspects.CONTEXTS)


def test_a_context_longer_than_the_text_allows_is_refused(model_path: Path) -> None:
    _, epsilon, _ = list_suspects(gguf.inspect(model_path))
    with pytest.raises(ToolchainError, match=r"evaluation\.txt has fewer than 5000 tokens"):
        suspects.measure_logits(model_path, [epsilon], n_ctx=2500, n_chunks=1)
    with pytest.raises(SettingError, match="n_ctx=128 and n_chunks=1 score fewer than 100"):
        suspects.measure_logits(model_path, [epsilon], n_ctx=128, n_chunks=1)


@pytest.mark.nightly  # notebook 06 measures overrides in both ways
@pytest.mark.slow
def test_llama_perplexity_measures_an_override_on_the_real_model(model_path: Path) -> None:
    info = gguf.inspect(model_path)
    yarn, _, _ = list_suspects(info)
    same = Suspect("same", "the epsilon of the file", Loading(
        override_kv=("llama.attention.layer_norm_rms_epsilon=float:1e-05",)))  # fmt: skip
    effects = suspects.measure_logits(model_path, [yarn, same], n_ctx=256, n_chunks=1)
    by_yarn, by_none = effects
    assert abs(by_none.kl) < 1e-4 and by_none.same_top == 1
    assert by_yarn.kl_interval[0] > 0.01 and by_yarn.same_top < 1
    for effect in effects:
        low, high = effect.same_top_interval
        assert 0 < low <= effect.same_top <= high <= 1 and high - low > 0.01
        assert effect.n_tokens == 127


@pytest.mark.nightly  # notebook 06 measures overrides in both ways
@pytest.mark.slow
def test_conduct_compares_the_same_runs_with_and_without(model_path: Path) -> None:
    planned = suspects.plan_paired_requests(n_long=1)
    requests = [replace(request, n_predict=24) for request in (planned[0], planned[4], planned[-1])]
    key = "llama.attention.layer_norm_rms_epsilon"
    same = Suspect("same", "the file's own", Loading(override_kv=(f"{key}=float:1e-05",)))
    wild = Suspect("wild", "far off", Loading(override_kv=(f"{key}=float:10",)))
    kept, broken = suspects.measure_conduct(model_path, [same, wild], requests)
    assert kept.same_texts == kept.n == 3
    assert broken.same_texts == 0 and broken.code.after == 0
