"""Perplexity, divergence and agreement: against llama-perplexity, bitsandbytes and arithmetic."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import tiny_llama
import torch

from qwqlab import paths
from qwqlab.errors import SettingError
from qwqlab.llamacpp import tools
from qwqlab.quant import (
    BnbCodec,
    Checkpoint,
    Decoded,
    Reference,
    compare_blocks,
    evaluate,
    find_codec,
    list_linears,
    load_quantised,
    measure_alone,
)
from qwqlab.quant.evaluation import jackknife, predict
from qwqlab.quant.weights import open_weights

TEXT = paths.data_dir() / "texts" / "evaluation.txt"


@pytest.fixture(scope="module")
def checkpoint(model_path: Path) -> Checkpoint:
    return Checkpoint(model_path)


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> Any:
    return checkpoint.load()


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint, model: Any) -> Reference:
    return Reference(model, checkpoint.read_blocks(TEXT, 192, 64))


@pytest.fixture(scope="module")
def decoded(model: Any) -> Decoded:
    return Decoded(model, find_codec("nf4-dq"))


@pytest.mark.slow
def test_perplexity_is_llama_perplexitys(
    model_path: Path, checkpoint: Checkpoint, model: Any
) -> None:
    quality = Reference(model, checkpoint.read_blocks(TEXT, 512, 256)).compare()
    args = ["-m", str(model_path), "-f", str(TEXT), "-c", "256", "--chunks", "2"]
    for _ in range(3):
        said = tools.run_tool("llama-perplexity", args).stderr
        if final := re.search(r"Final estimate: PPL = ([\d.]+)", said):
            break
    assert final and quality.perplexity == pytest.approx(float(final[1]), rel=0.01)
    assert quality.kl_mean == 0 and quality.top1_agreement == 1 and quality.n_blocks == 2
    assert quality.n_tokens == 2 * 127


def test_decoded_weights_predict_what_bitsandbytes_predicts(
    checkpoint: Checkpoint, reference: Reference, decoded: Decoded
) -> None:
    keep = ["model.layers.4.mlp.down_proj"]
    with decoded.swapped(keep=keep) as model:
        mine = predict(model, reference.blocks[0])
    codec = BnbCodec("nf4", double=True)
    loaded = load_quantised(checkpoint, [*keep, "lm_head"], codec, "float32")
    assert torch.allclose(mine, predict(loaded, reference.blocks[0]), atol=1e-4)


def test_the_numbers_are_those_of_their_definitions(reference: Reference, decoded: Decoded) -> None:
    before = [predict(reference.model, block) for block in reference.blocks]
    with decoded.swapped():
        after = [predict(reference.model, block) for block in reference.blocks]
        quality = reference.compare()
    p, q = torch.cat(before).double(), torch.cat(after).double()
    divergence = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(1)
    assert quality.kl_mean == pytest.approx(float(divergence.mean()), rel=1e-4)
    assert quality.kl_p99 == pytest.approx(float(divergence.quantile(0.99)), rel=1e-4)
    same = (p.argmax(1) == q.argmax(1)).double().mean()
    assert quality.top1_agreement == pytest.approx(float(same))
    follows = torch.cat([block[33:64] for block in reference.blocks])
    surprise = -q.gather(1, follows[:, None]).mean()
    assert quality.perplexity == pytest.approx(math.exp(float(surprise)), rel=1e-5)
    low, high = quality.kl_mean_interval
    assert low < quality.kl_mean < high
    again = reference.compare()  # and the model is itself again
    assert again.kl_mean == 0


def test_one_module_alone_is_what_a_whole_pass_gives(
    reference: Reference, decoded: Decoded
) -> None:
    chosen = [linear for linear in decoded.linears if linear.layer in (0, 29)][::6]
    alone = measure_alone(reference, decoded, chosen)
    for linear in chosen:
        with decoded.swapped(only=[linear.name]):
            assert alone[linear.name] == pytest.approx(reference.compare().kl_mean, rel=1e-3)
    assert reference.compare().kl_mean == 0


def test_measuring_each_alone_stops_between_two_and_keeps_them(
    reference: Reference, decoded: Decoded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("qwqlab.quant.journal.paths.models_dir", lambda: tmp_path)
    told: list[tuple[int, int]] = []

    def measure(linears: Any) -> dict[str, float]:
        return measure_alone(
            reference,
            decoded,
            linears,
            on_module=lambda done, total, *_: told.append((done, total)),
            stop=lambda: len(told) == 2,
            key="x",
        )

    found = measure(decoded.linears[-5:])
    assert list(found) == [each.name for each in decoded.linears[-5:-3]]
    assert told == [(1, 5), (2, 5)]
    monkeypatch.setattr(Reference, "score", lambda *_: pytest.fail("it was measured again"))
    assert measure(decoded.linears[-5:-3]) == found


def test_intervals_are_students_for_a_mean() -> None:
    blocks = [torch.randn(1, 50, generator=torch.Generator().manual_seed(k)) for k in range(6)]
    value, (low, high) = jackknife(blocks, lambda each: float(each.mean()) + 1)
    means = [float(block.mean()) + 1 for block in blocks]
    t = scipy.stats.t(5, sum(means) / 6, scipy.stats.sem(means))
    assert value == pytest.approx(sum(means) / 6)
    assert (low, high) == pytest.approx(tuple(map(float, t.interval(0.95))), rel=1e-5)


def test_two_variants_are_compared_block_by_block(reference: Reference, decoded: Decoded) -> None:
    with decoded.swapped():
        naive = reference.compare()
    with decoded.swapped(keep=[each.name for each in decoded.linears[:150]]):
        better = reference.compare()
    difference, (low, high) = compare_blocks(naive, better)
    assert difference == pytest.approx(naive.kl_mean - better.kl_mean)
    assert 0 < low < difference < high


def test_a_head_that_no_list_keeps_is_quantised_and_the_embedding_is_not(tmp_path: Path) -> None:
    tied = tiny_llama.make_in_bytes(tmp_path / "tied", tie_word_embeddings=True)
    model = Checkpoint(tied).load()
    embedding = model.get_input_embeddings().weight
    before = embedding.detach().clone()
    whole = Decoded(model, find_codec("nf4"), head=True)
    with whole.swapped():
        assert not torch.equal(model.lm_head.weight, before)
        assert torch.equal(model.get_input_embeddings().weight, before)
    assert model.lm_head.weight is embedding


def test_skip_lists_that_fit_nothing_and_short_texts_are_refused(tmp_path: Path) -> None:
    folder = tiny_llama.make_in_bytes(tmp_path / "tiny")
    with pytest.raises(SettingError, match="fits no linear module"):
        evaluate(folder, "nf4", ["model.layers.99.mlp"], n_tokens=64)
    short = tmp_path / "short.txt"
    short.write_text("Too short for two blocks.")
    with pytest.raises(SettingError, match="two"):
        evaluate(folder, text=short)


def test_quality_goes_through_json(reference: Reference) -> None:
    values = json.loads(json.dumps(reference.compare().to_dict()))
    assert values["kl_mean"] == 0 and values["n_blocks"] == 3
    assert len(values["perplexity_interval"]) == 2


def test_linears_of_a_model_are_those_of_its_skeleton_and_its_file(
    checkpoint: Checkpoint, model: Any
) -> None:
    assert list_linears(model) == list_linears(checkpoint.skeleton())
    # The same order as transformers', though the file's is another.
    assert open_weights(checkpoint).linears == list_linears(model)
