"""llama.cpp command lines: read, written, and read again."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qwqlab.errors import SettingError
from qwqlab.llamacpp import Loading, escape, read_prompt, unescape
from qwqlab.sampling import PRESETS, Command, Engine, Sampling, parse_command, preset

ARTICLE = r"""./llama.cpp/llama-cli \
 --model unsloth-QwQ-32B-GGUF/QwQ-32B-Q4_K_M.gguf \
 --threads 32 --ctx-size 16384 --n-gpu-layers 99 --seed 3407 --prio 2 --temp 0.6 \
 --repeat-penalty 1.5 --repeat-penalty 1.1 --dry-multiplier 0.5 \
 --min-p 0.0 --top-k 40 --top-p 0.95 -no-cnv \
 --samplers "top_k;top_p;min_p;temperature;dry;typ_p;xtc" \
 --prompt "<|im_start|>user\nCreate a game.<|im_end|>\n<|im_start|>assistant\n<think>\n" \
 2>&1 | tee Q4_K_M_yes_samplers.txt"""


def test_the_articles_command_is_the_article_preset() -> None:
    command = parse_command(ARTICLE)
    assert command.sampling == preset("article")
    assert command.loading == Loading(n_threads=32, n_ctx=16384, n_gpu_layers=99)
    assert command.seed == 3407
    assert command.prompt.endswith("<|im_end|>\n<|im_start|>assistant\n<think>\n")
    assert command.notes == ("--repeat-penalty is given twice: 1.1 counts, 1.5 does not",)


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
    for text in (r"a\tb\\c\q\'\"", r"\x41B", r"end\x41"):
        assert engine.model.tokenize(unescape(text)) == llama_tokenize(text)


def test_a_prompt_file_is_taken_byte_for_byte_but_dash_f_drops_a_newline(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"one\n\n\xff\r\n")
    assert read_prompt(path).encode("utf-8", "surrogateescape") == b"one\n\n\xff\r\n"
    assert parse_command(["-f", str(path)]).prompt.endswith("\r")


def test_a_prompt_file_without_end_is_refused() -> None:
    with pytest.raises(SettingError, match="/dev/zero has more than 16,000,000 bytes"):
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
        ("llama-cli --warmth 3", "'--warmth' is not a flag"),
        ("llama-cli --temp", "--temp needs a value"),
        ("llama-cli --temp hot", "--temp 'hot' is not a number"),
        ("llama-cli --top-k 4.5", "--top-k '4.5' is not a whole number"),
        ("llama-cli --samplers 'top_k;oops'", "'oops' is not a sampler"),
        ("llama-cli --logit-bias 5", "logit_bias='5' is not TOKEN_ID+BIAS"),
        ("llama-cli --logit-bias 5+inf", "logit_bias='5+inf' is not TOKEN_ID+BIAS"),
        ("llama-cli --seed -1", "seed=-1 is out of range"),
        ("llama-cli -fa maybe", "flash_attn='maybe' is not one of"),
        ("llama-cli --override-kv a=b", "override_kv='a=b' is not KEY=TYPE:VALUE"),
        ("llama-cli --prompt 'open", "does not parse"),
        ("llama-cli -f /no/such/file", "cannot be read"),
    ],
)
def test_a_bad_command_is_refused_in_one_sentence(line: str, words: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_command(line)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


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
