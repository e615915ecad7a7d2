"""The catalog's data, against what is known of the models from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwqlab.errors import FetchError, SettingError
from qwqlab.models import (
    EMBEDDED,
    ENTRIES,
    QWQ,
    estimate_memory,
    inspect,
    list_local,
    lookup,
)
from qwqlab.models import model_path as find_model
from qwqlab.models.catalog import Architecture


def test_every_name_finds_its_entry_whatever_its_capitals() -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        assert lookup(entry.name) is entry
        assert lookup(f" {entry.model.upper()}:{entry.quant.lower()} ") is entry


def test_the_articles_quants_are_there_with_rising_sizes() -> None:
    quants = ["Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16"]
    sizes = [lookup(f"QwQ-32B:{quant}").n_bytes for quant in quants]
    assert sizes == sorted(sizes)
    for quant in ("bnb-4bit", "dynamic-4bit", "16bit"):
        assert lookup(f"QwQ-32B:{quant}").format == "safetensors"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("QwQ-32B:Q4_K_S", "QwQ-32B:Q4_K_M"),
        ("smollm2-135", "smollm2-135m"),
        ("qwq", "it has smollm2-135m, "),
        ("QwQ-32B", "has no 'QwQ-32B', but QwQ-32B:Q2_K, QwQ-32B:Q3_K_M, "),
        ("smollm2-135m:Q5_0", "has no 'smollm2-135m:Q5_0', but smollm2-135m:Q4_1"),
        ("", "it has smollm2-135m"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(name: str, says: str) -> None:
    with pytest.raises(FetchError) as caught:
        lookup(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_qwqs_cache_takes_a_quarter_of_a_megabyte_a_token() -> None:
    assert QWQ.kv_bytes_per_token == 262_144
    needed = estimate_memory(lookup("QwQ-32B:Q4_K_M"), n_ctx=16_384)
    assert needed.kv_cache == 16_384 * 262_144
    assert needed.total == needed.weights + needed.kv_cache + needed.overhead
    assert estimate_memory(lookup("QwQ-32B:Q4_K_M")).kv_cache == 131_072 * 262_144


def test_the_sizes_agree_with_the_number_of_parameters() -> None:
    bf16 = lookup("QwQ-32B:BF16")
    assert bf16.n_bytes == pytest.approx(32.764e9 * 2, rel=0.002)
    for entry in ENTRIES:
        assert entry.gigabytes.startswith("about") == (entry.sha256 is None)


def test_a_context_of_no_tokens_is_refused() -> None:
    with pytest.raises(SettingError, match="n_ctx is 0"):
        estimate_memory(EMBEDDED, n_ctx=0)


def test_a_size_is_exact_where_the_hash_is_known() -> None:
    known = [entry.model for entry in ENTRIES if entry.sha256]
    coders = [f"Qwen2.5-Coder-{size}-Instruct" for size in ("0.5B", "1.5B")]
    assert known == [EMBEDDED.model, *coders]


def test_the_embedded_models_size_and_quant_are_those_of_its_file(model_path: Path) -> None:
    info = inspect(model_path)
    assert (info.n_bytes, info.file_type) == (EMBEDDED.n_bytes, EMBEDDED.quant)


def test_the_numbers_of_each_model_that_is_here_are_those_in_its_file() -> None:
    here = [entry for entry in list_local() if entry.format == "gguf"]
    assert EMBEDDED in here
    for entry in here:
        info = inspect(find_model(entry.name))
        said = {k.removeprefix(f"{info.architecture}."): v for k, v in info.metadata.items()}
        head_dim = said["embedding_length"] // said["attention.head_count"]
        assert entry.architecture == Architecture(
            name=info.architecture,
            n_layers=said["block_count"],
            n_embd=said["embedding_length"],
            n_kv_heads=said["attention.head_count_kv"],
            head_dim=said.get("attention.key_length", head_dim),
            n_vocab=info.tokenizer.n_tokens,
            n_ctx_train=said["context_length"],
        ), entry.name
