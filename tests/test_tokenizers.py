"""QwQ-32B's tokenizer, built twice from its ranks, and where its two engines part."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from malformed import Gguf, Raw, sound, u32, u64

from qwqlab import paths
from qwqlab.errors import FetchError, ModelFileError, SettingError
from qwqlab.experiments import compare_tokenizers, list_pieces, make_texts, read_corpus
from qwqlab.experiments.tokenizers_compared import UNEXPLAINED
from qwqlab.llamacpp import builds, tools
from qwqlab.models import (
    LlamaTokenizer,
    TransformersTokenizer,
    build_qwq,
    find_qwq_token,
    import_transformers,
    inspect,
    open_tokenizer,
    qwq,
)

Ranks = dict[bytes, int]


@pytest.fixture(scope="module")
def ranks() -> Ranks:
    return qwq.read_ranks()


@pytest.fixture(scope="module")
def folder() -> Path:
    return build_qwq()


@pytest.fixture(scope="module")
def ours() -> Iterator[LlamaTokenizer]:
    with LlamaTokenizer("qwq-32b") as tokenizer:
        yield tokenizer


@pytest.fixture(scope="module")
def theirs() -> TransformersTokenizer:
    return TransformersTokenizer("qwq-32b")


def copy_of(tokenizer: TransformersTokenizer, **changes: Any) -> TransformersTokenizer:
    """A transformers tokenizer like this one, but for these parts of its tokenizer.json."""
    from tokenizers import Tokenizer

    spec = json.loads(tokenizer.tokenizer.backend_tokenizer.to_str())
    backend = Tokenizer.from_str(json.dumps({**spec, **changes}))
    made = import_transformers().PreTrainedTokenizerFast(tokenizer_object=backend)
    return TransformersTokenizer(made)


@pytest.mark.nightly  # gguf's own reader takes 12 s
def test_tokens_and_merges_are_those_of_llama_cpps_own_qwen2_vocabulary(
    ranks: Ranks, lacking: Callable[[str], NoReturn]
) -> None:
    from gguf import GGUFReader

    source = builds.find_source()
    path = (source or Path()) / "models" / "ggml-vocab-qwen2.gguf"
    if not path.is_file():
        lacking("the source of llama.cpp, which holds the vocabulary of Qwen2, is not here")
    fields = GGUFReader(path).fields
    merges = [f"{qwq.spell(left)} {qwq.spell(right)}" for left, right in qwq.recover_merges(ranks)]
    assert fields["tokenizer.ggml.merges"].contents() == merges
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert tokens[: len(ranks)] == [qwq.spell(token) for token in ranks]
    assert tokens[151_643:151_646] == list(qwq.ADDED)[:3]


def test_there_are_as_many_ranks_as_the_first_added_token_says(ranks: Ranks) -> None:
    assert sorted(ranks.values()) == list(range(qwq.FIRST_ADDED))
    assert qwq.FIRST_ADDED + len(qwq.ADDED) == 151_669
    assert set(map(qwq.spell, (bytes([n]) for n in range(256)))) == set(qwq.byte_letters())


def test_the_vocabulary_is_padded_and_typed_as_the_converter_does_it(
    folder: Path, ours: LlamaTokenizer
) -> None:
    info = inspect(folder / "vocab.gguf")
    assert info.architecture == "qwen2"
    assert (info.tokenizer.model, info.tokenizer.pre) == ("gpt2", "qwen2")
    assert info.tokenizer.n_tokens == 152_064
    assert (info.tokenizer.eos, info.tokenizer.pad, info.tokenizer.bos) == (151645, 151654, 151643)
    assert info.tokenizer.add_bos is False
    struck = {128_247}  # </s>, see below
    named = {text: find_qwq_token(text) for text in qwq.ADDED}
    hidden = {token for token, control in ours.special_tokens.items() if control}
    assert hidden - struck == {token for text, token in named.items() if text.startswith("<|")}
    assert set(ours.special_tokens) - struck == set(named.values())
    assert ours.pieces(named.values()) == list(named)


def test_both_engines_encode_words_as_the_ranks_define_it(
    ranks: Ranks, ours: LlamaTokenizer, theirs: TransformersTokenizer
) -> None:
    rng = random.Random(3407)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMéüßаяжتب中文한"
    words = ["".join(rng.choices(letters, k=rng.randint(1, 30))) for _ in range(300)]
    words += ["internationalisation", "Donaudampfschiff", "птица", "飞过管道"]
    words = [unicodedata.normalize("NFC", word) for word in words]
    defined = [[ranks[part] for part in qwq.merge(word.encode(), ranks)] for word in words]
    assert ours.encode(words) == defined
    assert theirs.encode(words) == defined


@pytest.mark.parametrize("special", [True, False])
def test_llama_tokenize_makes_the_same_tokens(
    special: bool, ours: LlamaTokenizer, folder: Path, tmp_path: Path
) -> None:
    wanted = {"a turn", "decomposed Korean", "HTML's struck text"}
    texts = [text.text for text in read_corpus() if text.name in wanted]
    assert len(texts) == len(wanted)
    for text in texts:
        file = tmp_path / "text"
        file.write_bytes(text.encode())
        args = ["-m", str(folder / "vocab.gguf"), "-f", str(file), "--ids", "--log-disable"]
        args += [] if special else ["--no-parse-special"]
        printed = json.loads(tools.run_tool("llama-tokenize", args).stdout)
        assert ours.encode([text], special) == [printed]


def test_the_corpus_differs_where_it_says_so_and_for_the_cause_it_says(
    ours: LlamaTokenizer, theirs: TransformersTokenizer
) -> None:
    corpus = read_corpus()
    found = compare_tokenizers(ours, theirs, [text.text for text in corpus])
    assert {corpus[each.place].name: each.cause for each in found.differences} == {
        text.name: text.cause for text in corpus if text.cause
    }
    assert len(corpus) - len(found.differences) > 50


def test_python_normalising_a_text_brings_llama_cpp_to_transformers_tokens(
    ours: LlamaTokenizer, theirs: TransformersTokenizer
) -> None:
    texts = [text.text for text in read_corpus() if text.cause == "normalisation"]
    composed = [unicodedata.normalize("NFC", text) for text in texts]
    assert ours.encode(texts) != theirs.encode(texts)
    assert ours.encode(composed) == theirs.encode(texts)


def test_without_special_tokens_the_two_disagree_on_which_are_special(
    ours: LlamaTokenizer, theirs: TransformersTokenizer
) -> None:
    texts = list(qwq.ADDED)
    assert compare_tokenizers(ours, theirs, texts).differences == ()
    found = compare_tokenizers(ours, theirs, texts, parse_special=False)
    assert {each.text for each in found.differences} == {
        text for text, special in qwq.ADDED.items() if not special and text.startswith("<|")
    }
    assert found.counts == {"added tokens": 6}
    assert ours.encode(["<think>"], False) == theirs.encode(["<think>"], False) == [[151_667]]
    for tokenizer in (ours, theirs):  # or it would be read letter by letter
        with pytest.raises(SettingError, match="'<think>' is one text; give a list of texts"):
            tokenizer.encode("<think>")


def test_llama_cpp_makes_an_ordinary_token_of_qwens_vocabulary_a_stop(
    ranks: Ranks, ours: LlamaTokenizer
) -> None:
    assert ranks[b"</s>"] == 128_247
    assert 128_247 in ours.end_tokens
    assert 128_247 in ours.encode(["<s>old</s>"])[0]
    assert 128_247 not in ours.encode(["<s>old</s>"], False)[0]


@pytest.mark.nightly  # notebook 06 does it with 10,000
@pytest.mark.parametrize("special", [True, False])
def test_every_difference_in_100000_made_texts_is_explained(
    special: bool, ours: LlamaTokenizer, theirs: TransformersTokenizer
) -> None:
    texts = make_texts(100_000, pieces=list_pieces(ours))
    found = compare_tokenizers(ours, theirs, texts, special)
    assert found.unexplained == (), found.unexplained[:5]
    parts = {name for cause in found.counts for name in cause.split(" + ")}
    assert parts == {"normalisation", "added tokens", "Unicode version"}
    assert 25_000 < found.counts["normalisation"] < 40_000
    plain = [text for text in texts if text.isascii()]
    assert len(plain) > 5_000
    same = compare_tokenizers(ours, theirs, plain, special)
    assert set(same.counts) <= {"added tokens"}


@pytest.mark.nightly  # builds a second tokenizer; the next test reports such differences, too
def test_a_difference_without_a_known_cause_is_reported_as_such(
    ours: LlamaTokenizer, theirs: TransformersTokenizer
) -> None:
    spec = json.loads(theirs.tokenizer.backend_tokenizer.to_str())
    fewer = {**spec["model"], "merges": spec["model"]["merges"][:1000]}
    found = compare_tokenizers(
        ours, copy_of(theirs, model=fewer), ["a", "international", "e\u0301"]
    )
    assert found.counts == {UNEXPLAINED: 2}
    assert [each.text for each in found.unexplained] == ["international", "e\u0301"]
    assert "2 by unexplained" in found.summary


@pytest.mark.parametrize(
    "model",
    [
        {
            "type": "Unigram",
            "unk_id": 0,
            "vocab": [["?", 0.0], ["a", -1.0]],
            "byte_fallback": False,
        },
        {"type": "BPE", "vocab": {}, "merges": []},
    ],
)
def test_a_tokenizer_of_another_kind_differs_without_a_cause(
    model: dict[str, Any], ours: LlamaTokenizer, theirs: TransformersTokenizer
) -> None:
    found = compare_tokenizers(
        ours, copy_of(theirs, model=model, added_tokens=[]), ["ab<think>", "e\u0301"]
    )
    assert found.counts == {UNEXPLAINED: 2}


@pytest.mark.nightly  # the corpus and Mistral's pattern have a text for each of these causes
@pytest.mark.parametrize(
    ("changes", "text", "cause"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "A Bird", "normalisation"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}}, "x\n\ny", "pre-tok"),
        ({"added_tokens": []}, "a<think>", "added tokens"),
    ],
)
def test_a_tokenizer_changed_in_one_respect_is_found_out(
    changes: dict[str, Any],
    text: str,
    cause: str,
    ours: LlamaTokenizer,
    theirs: TransformersTokenizer,
) -> None:
    levels = {"trim_offsets": True, "use_regex": True}
    if "pre_tokenizer" in changes:
        changes = {"pre_tokenizer": {**changes["pre_tokenizer"], **levels}}
    found = compare_tokenizers(ours, copy_of(theirs, **changes), ["plain", text])
    (difference,) = found.differences
    assert difference.place == 1
    assert difference.cause.startswith(cause)
    first = difference.first
    assert difference.llama_cpp[:first] == difference.transformers[:first]
    assert difference.llama_cpp[first:][:1] != difference.transformers[first:][:1]


@pytest.mark.nightly  # two tokenizers more; only a new transformers breaks it
def test_mending_mistrals_pattern_as_transformers_proposes_would_break_qwens(
    folder: Path, ours: LlamaTokenizer, tmp_path: Path
) -> None:
    # It proposes so for any folder whose config.json lacks transformers_version.
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    auto = import_transformers().AutoTokenizer
    mended = auto.from_pretrained(str(tmp_path), fix_mistral_regex=True, local_files_only=True)
    kept, broken = TransformersTokenizer(tmp_path), TransformersTokenizer(mended)
    assert compare_tokenizers(ours, kept, ["JavaScript"]).differences == ()
    assert compare_tokenizers(ours, broken, ["JavaScript"]).counts == {"pre-tokenizer": 1}


@pytest.mark.nightly  # another process, with torch; only a new transformers breaks it
def test_transformers_says_nothing_when_it_loads_the_folder() -> None:
    code = "from qwqlab.models import open_tokenizer\nopen_tokenizer('qwq-32b', 'transformers')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_gguf_without_torch_is_refused_with_the_way_out(model_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from qwqlab.errors import ModelFileError\n"
        "from qwqlab.models import TransformersTokenizer\n"
        "try: TransformersTokenizer(sys.argv[1])\n"
        "except ModelFileError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model_path)], capture_output=True, text=True, check=True
    )
    assert "only with torch, which is not installed: `pip install qwqlab[train]`" in done.stdout


@pytest.mark.parametrize(
    ("name", "engine", "error", "says"),
    [
        ("qwq-32b", "sentencepiece", SettingError, "engine='sentencepiece' is not one of llama"),
        ("/no/such.gguf", "llama.cpp", FetchError, "no file /no/such.gguf"),
        ("/no/such", "transformers", FetchError, "/no/such"),
        ("smollm3", "llama.cpp", FetchError, "smollm3"),
        ("{tmp}", "llama.cpp", FetchError, "is no plain file"),
        ("{tmp}", "transformers", ModelFileError, "transformers reads no tokenizer from"),
        ("{tmp}/tiny.gguf", "llama.cpp", ModelFileError, "tiny.gguf cannot be loaded"),
        ("{tmp}/text.gguf", "llama.cpp", ModelFileError, "is not a GGUF file"),
    ],
)
def test_what_is_no_tokenizer_is_refused_in_one_sentence(
    name: str, engine: str, error: type[Exception], says: str, tmp_path: Path
) -> None:
    (tmp_path / "tiny.gguf").write_bytes(sound().build())
    (tmp_path / "text.gguf").write_text("hello")
    (tmp_path / "tokenizer.json").write_text("{" * 100)
    with pytest.raises(error) as caught:
        open_tokenizer(name.format(tmp=tmp_path), engine)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_a_character_is_refused(ours: LlamaTokenizer, theirs: TransformersTokenizer) -> None:
    with pytest.raises(SettingError, match="text 1 holds half a character"):
        compare_tokenizers(ours, theirs, ["sound", "half \ud83d"])


def test_without_the_ranks_a_sentence_says_which_command_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path))
    with pytest.raises(FetchError, match="`qwqlab fetch qwq-32b-ranks` downloads them"):
        build_qwq()
    wrong = paths.models_dir() / "qwen.tiktoken"
    wrong.parent.mkdir(parents=True)
    wrong.write_text("IQ== 0\n")
    with pytest.raises(FetchError, match="are not at"):
        qwq.read_ranks()


def test_a_text_longer_than_the_buffer_and_an_empty_one_are_read(ours: LlamaTokenizer) -> None:
    long = "x y\n" * 5000
    first, second, third = ours.encode([long, "", long])
    assert first == third
    assert second == []
    assert len(first) > 10_000


def small_vocabulary(model: str = "gpt2") -> Gguf:
    """A vocabulary of 256 bytes, a merge and a special token that llama.cpp reads."""
    tokens = [*qwq.byte_letters(), "ab", "<|im_end|>"]
    return Gguf(
        keys=[
            ("general.architecture", "llama"),
            ("llama.context_length", 64),
            ("tokenizer.ggml.model", model),
            ("tokenizer.ggml.pre", "gpt-2"),
            ("tokenizer.ggml.tokens", tokens),
            ("tokenizer.ggml.token_type", [1] * 257 + [3]),
            ("tokenizer.ggml.merges", ["a b"]),
            ("tokenizer.ggml.eos_token_id", 257),
        ]
    )


def test_any_gguf_with_a_vocabulary_is_read_and_compared(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(small_vocabulary().build())
    with LlamaTokenizer(path) as small:
        assert small.encode(["abc<|im_end|>"]) == [[256, ord("c"), 257]]
        assert small.end_tokens == (257,)


def test_a_vocabulary_that_ends_llama_cpps_process_does_not_end_this_one(tmp_path: Path) -> None:
    # As SentencePiece's, it lacks the tokens <0x00> to <0xFF> that llama.cpp counts on.
    path = tmp_path / "spm.gguf"
    made = small_vocabulary("llama")
    made.keys.append(("tokenizer.ggml.scores", Raw(9, u32(6) + u64(258) + bytes(4 * 258))))
    path.write_bytes(made.build())
    with pytest.raises(ModelFileError) as caught:
        LlamaTokenizer(path)
    assert str(path) in str(caught.value)


@pytest.mark.nightly  # each is tried in a process of its own
def test_mutated_vocabularies_are_read_or_refused(tmp_path: Path) -> None:
    whole = small_vocabulary().build()
    rng = random.Random(3407)
    path = tmp_path / "mutated.gguf"
    read = refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.choice([0, 1, 0x20, 0x7F, 0xFF])
        path.write_bytes(data)
        try:
            with LlamaTokenizer(path) as tokenizer:
                tokenizer.encode(["abc <|im_end|> \u00e9"])
            read += 1
        except ModelFileError as error:
            assert "\n" not in str(error)
            refused += 1
    assert read > 5
    assert refused > 5
