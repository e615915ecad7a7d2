"""llama.cpp command lines: read, written, and read again."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwqlab.errors import SettingError
from qwqlab.llamacpp import Loading, escape, read_prompt, unescape
from qwqlab.sampling import (
    CHANGES,
    DEFAULT_ORDER,
    MARCH_2025,
    PRESETS,
    Command,
    Engine,
    Sampling,
    parse_command,
    preset,
    split_flags,
)

ARTICLE = r"""./llama.cpp/llama-cli \
 --model unsloth-QwQ-32B-GGUF/QwQ-32B-Q4_K_M.gguf \
 --threads 32 --ctx-size 16384 --n-gpu-layers 99 --seed 3407 --prio 2 --temp 0.6 \
 --repeat-penalty 1.5 --repeat-penalty 1.1 --dry-multiplier 0.5 \
 --min-p 0.0 --top-k 40 --top-p 0.95 -no-cnv \
 --samplers "top_k;top_p;min_p;temperature;dry;typ_p;xtc" \
 --prompt "<|im_start|>user\nCreate a game.<|im_end|>\n<|im_start|>assistant\n<think>\n" \
 2>&1 | tee Q4_K_M_yes_samplers.txt"""


def test_the_articles_command_is_the_article_preset() -> None:
    command = parse_command(ARTICLE, MARCH_2025)
    assert command.sampling == preset("article")
    assert "--dry-penalty-last-n 16384" in command.line()
    assert command.loading == Loading(n_threads=32, n_ctx=16384, n_gpu_layers=99)
    assert command.seed == 3407
    assert command.prompt.endswith("<|im_end|>\n<|im_start|>assistant\n<think>\n")
    assert command.notes == ("--repeat-penalty is given twice: 1.1 counts, 1.5 does not",)


def test_the_articles_presets_have_the_defaults_of_march_2025_each_with_its_source() -> None:
    pulls = {change.what: change.pull for change in CHANGES}
    # Every default that differs from today's, and the pull request that changed it.
    sources = {"samplers": pulls["--samplers"], "dry_penalty_last_n": pulls["--dry-penalty-last-n"]}
    assert sources == {"samplers": 13264, "dry_penalty_last_n": 26524}
    then, now = MARCH_2025.to_dict(), Sampling().to_dict()
    assert {name for name in now if then[name] != now[name]} == set(sources)
    assert [name for name in DEFAULT_ORDER if name not in MARCH_2025.samplers] == ["top_n_sigma"]
    context = re.search(r"--ctx-size (\d+)", ARTICLE)
    assert context and then["dry_penalty_last_n"] == int(context[1])
    for name in ("article", "article_without_fix", "article_with_penalties"):
        assert preset(name).dry_penalty_last_n == 16_384
        assert "top_n_sigma" not in preset(name).samplers


def test_todays_llama_cpp_reads_the_articles_command_with_another_window() -> None:
    today, then = parse_command(ARTICLE).sampling, preset("article")
    assert today == then.with_(dry_penalty_last_n=64)
    with pytest.raises(SettingError, match="dry-penalty-last-n"):
        parse_command("llama-completion --dry-penalty-last-n -1")


@pytest.mark.parametrize("name", PRESETS)
def test_a_printed_command_reads_back_as_the_same_run(name: str) -> None:
    command = Command(
        PRESETS[name],
        Loading(n_ctx=512, flash_attn="off", override_kv=("a.b=float:1e-06", "c=str:x y")),
        "my model.gguf",
        'It\'s a "test"\\n with\ttabs,\r\nlines $HOME `x` and \\ at the end\\',
        7,
        40,
    )
    assert parse_command(command.line()) == command
    assert parse_command(["llama-completion", *command.argv()]) == command


def test_every_number_is_in_the_printed_command() -> None:
    words = shlex.split(Command(Sampling(), model="m.gguf", prompt="x", seed=1).line())
    assert {"--min-p", "--repeat-penalty", "--xtc-probability", "--mirostat"} <= set(words)


def test_breakers_survive_the_way_there_and_back() -> None:
    for breakers in ((), ("\n",), ("\\n", "a b", "'")):
        command = Command(Sampling(dry_sequence_breakers=breakers), model="m", seed=1)
        assert parse_command(command.line()).sampling.dry_sequence_breakers == breakers


def test_biases_add_up_and_survive_the_way_there_and_back() -> None:
    line = "llama-cli -l 5+1 --logit-bias '7 -inf' --ignore-eos"
    sampling = parse_command(line).sampling
    assert (sampling.logit_bias, sampling.ignore_eos) == (("5+1", "7 -inf"), True)
    command = Command(sampling, model="m", seed=1)
    assert parse_command(command.line()).sampling == sampling


def test_letters_name_samplers_too() -> None:
    assert parse_command("llama-cli --sampling-seq kpt").sampling.samplers == (
        "top_k",
        "top_p",
        "temperature",
    )


@pytest.mark.parametrize("text", ["a\nb", "\\n", "\\\\", "tab\t", "\\x41", "x\\", "é\r\n"])
def test_escapes_are_undone_by_llama_cpps_rule(text: str) -> None:
    assert unescape(escape(text)) == text


def test_escapes_match_those_of_llama_completion(
    llama_tokenize: Callable[[str], list[int]], engine: Engine
) -> None:
    for text in (r"a\tb\\c\q\'\"", r"\x41B", r"end\x41", r"\x 9\x+9\x4", "x\\"):
        assert engine.model.tokenize(unescape(text)) == llama_tokenize(text)


def test_a_prompt_file_is_taken_byte_for_byte_but_dash_f_drops_a_newline(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"one\n\n\xff\r\n")
    assert read_prompt(path).encode("utf-8", "surrogateescape") == b"one\n\n\xff\r\n"
    assert parse_command(["-f", str(path)]).prompt.endswith("\r")


def test_a_prompt_file_without_end_is_refused() -> None:
    with pytest.raises(SettingError, match="/dev/zero is no regular file"):
        read_prompt("/dev/zero")


def test_a_line_broken_at_a_width_says_the_same() -> None:
    command = Command(preset("article").with_(ignore_eos=True), model="a b.gguf", prompt="x\ny z")
    lines = command.line(width=60).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert command.line(width=60).replace(" \\\n ", "") == command.line()
    assert parse_command(command.line(width=60)) == replace(command, notes=())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("llama-cli --warmth 3", "'--warmth' is not a flag of llama.cpp; do you mean --warmup?"),
        ("llama-cli --top_k=5", "write its value as a word of its own: --top-k '5'"),
        ("llama-cli --temp", "--temp needs a value"),
        ("llama-cli --temp hot", "--temp 'hot' is not a number"),
        ("llama-cli --temp nan", "--temp nan is out of range"),
        ("llama-cli --top-k .5", "--top-k '.5' is not a whole number"),
        ("llama-cli --top-k 2147483648", "--top-k '2147483648' is out of range"),
        ("llama-cli --samplers 'top_k;top-k'", "'top_k' is in the order twice"),
        ("llama-cli --logit-bias 5", "--logit-bias '5' is not TOKEN_ID+BIAS"),
        ("llama-cli -l none", "-l 'none' is not TOKEN_ID+BIAS"),
        ("llama-cli -l 5+nan", "-l '5+nan' is not TOKEN_ID+BIAS"),
        ("llama-cli --seed one", "--seed 'one' is not a whole number"),
        ("llama-cli --repeat_penalty 0", "--repeat-penalty 0.0 is out of range"),
        ("llama-cli -ub 0", "-ub 0 is out of range; give 1 to 2147483647"),
        ("llama-cli -fa maybe", "-fa 'maybe' is not one of"),
        ("llama-cli --override-kv a=b", "--override-kv 'a=b' is not KEY=TYPE:VALUE"),
        ("llama-cli --prio high", "--prio 'high' is not a whole number"),
        ("llama-cli --grammar x", "--grammar is refused: in llama.cpp it would hold the text to a"),
        ("llama-cli -hf a/b", "-hf is refused: in llama.cpp it would download a model (`qwqlab fe"),
        ("llama-cli --prompt 'open", "does not parse"),
        ("llama-cli -f /no/such/file", "cannot be read"),
    ],
)
def test_a_bad_command_is_refused_in_one_sentence(line: str, words: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_command(line)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "changes", "note"),
    [
        ("--samplers 'top_k; top_p'", {"samplers": ("top_k",)}, "knows no sampler ' top_p'"),
        ("--sampling-seq kz", {"samplers": ("top_k",)}, "knows no sampler 'z', and runs the"),
        ("--repeat_penalty 1.5 --top_k 20", {"repeat_penalty": 1.5, "top_k": 20}, ""),
        ("--temp 0,8", {"temp": 0.0}, "--temp '0,8' is read as 0"),
        ("--top-k ' 40.7'", {"top_k": 40}, "--top-k ' 40.7' is read as 40"),
        ("--min-p 0x1p-4", {"min_p": 0.0625}, ""),
        ("--temp -1 --top-p inf", {"temp": 0.0, "top_p": 1.0}, "--top-p 'inf' is read as 1"),
        ("--dry-base 1.5 --dry-base 0.5", {"dry_base": 1.5}, "takes no base below 1"),
        ("--dry-sequence-breaker ''", {"dry_sequence_breakers": ()}, "skips a breaker that is"),
        ("-l 5-1e2 -l '7 + .5'", {"logit_bias": ("5-1e2", "7 + .5")}, ""),
    ],
)
def test_values_are_read_as_llama_cpp_reads_them(
    line: str, changes: dict[str, Any], note: str
) -> None:
    command = parse_command(f"llama-cli {line}")
    assert command.sampling == Sampling().with_(**changes)
    assert note in " ".join(command.notes)
    assert bool(note) == bool(command.notes)


def test_a_seed_is_cut_to_32_bits_and_minus_one_draws_one() -> None:
    assert [parse_command(["x", "-s", s]).seed for s in ("7x", "-5", "4294967296")] == [
        7,
        2**32 - 5,
        0,
    ]
    drawn = [parse_command("llama-cli --seed -1") for _ in range(2)]
    assert drawn[0].seed != drawn[1].seed
    assert drawn[0].notes == (f"--seed -1 asks for any seed, and this run has {drawn[0].seed}",)


def test_the_last_of_escape_and_no_escape_counts() -> None:
    for flags, prompt in (
        (["-e"], "a\n"),
        (["--no-escape"], r"a\n"),
        (["--no_escape", "-e"], "a\n"),
    ):
        assert parse_command(["llama-cli", *flags, "-p", r"a\n"]).prompt == prompt


def test_of_two_ways_to_scale_rope_the_last_counts() -> None:
    command = parse_command("llama-cli --rope-freq-scale 0.5 --rope-scale 4")
    assert command.loading == Loading(rope_scale=4.0)
    assert command.notes == ("--rope-scale counts, --rope-freq-scale before it does not",)


def test_sizes_are_taken_for_what_llama_cpp_takes_them_for() -> None:
    loading = parse_command("llama-cli -c -5 -ngl all -ngl -7 -t 0").loading
    assert loading == Loading(n_ctx=8, n_gpu_layers=-2, n_threads=os.cpu_count() or 1)
    assert parse_command("llama-cli -n -2").n_predict == -1


def test_variables_count_where_no_flag_does() -> None:
    environ = {"LLAMA_ARG_TOP_K": "7", "LLAMA_ARG_TOP_P": "0.5", "LLAMA_ARG_JINJA": "1", "A": "b"}
    command = parse_command("llama-cli --top-k 3", environ=environ)
    assert command.sampling == Sampling(top_k=3, top_p=0.5)
    assert command.notes == (
        "the lab does not read LLAMA_ARG_JINJA",
        "LLAMA_ARG_TOP_K is set, but 3 counts, 7 does not",
        "LLAMA_ARG_TOP_P is set, and counts",
    )
    with pytest.raises(SettingError, match=r"^LLAMA_ARG_TOP_K 'abc' is not a whole number$"):
        parse_command("llama-cli", environ={"LLAMA_ARG_TOP_K": "abc"})


def test_flags_are_parted_from_those_of_another_program() -> None:
    words = ["-hf", "a/b", "-m", "x", "--top_k", "-5", "--json", "-p", "--json", "word"]
    assert split_flags(words, {"-m", "--json"}) == (
        ["-hf", "--top_k", "-5", "-p", "--json"],
        ["a/b", "-m", "x", "--json", "word"],
    )


@pytest.mark.parametrize("tail", ["", " 2>&1 | tee out.txt", " > 2", "|tee x", " ; ls", " && ls 2"])
def test_what_a_shell_would_do_with_the_output_is_left_out(tail: str) -> None:
    command = parse_command("llama-cli --top-k 2 --seed 2" + tail)
    assert (command.sampling.top_k, command.seed) == (2, 2)


@pytest.mark.parametrize("text", ["a; b", "<|im_start|>", "1 > 2 & 'x' | \"y\"", "2>&1", "\\"])
def test_the_labs_own_line_is_read_back_whatever_the_prompt_holds(text: str) -> None:
    command = Command(Sampling(dry_sequence_breakers=(";", text)), prompt=text, seed=2)
    assert parse_command(command.line()) == command


def test_a_nul_cannot_go_on_a_command_line() -> None:
    with pytest.raises(SettingError, match="NUL"):
        replace(Command(), prompt="a\0b").argv()
