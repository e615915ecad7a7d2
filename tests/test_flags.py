"""Flags as llama.cpp reads them: held against its table of flags, and against llama-completion."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

import pytest
from arg_table import Option, read_arg_table
from conftest import LAST_WORD
from tiny_gguf import N_CTX, make_tiny_gguf

from qwqlab.cli import main
from qwqlab.errors import SettingError
from qwqlab.llamacpp import C, run_tool, tool
from qwqlab.llamacpp.builds import capture
from qwqlab.sampling import BY_NAME, SETTINGS, Command, Engine, Sampling, parse_command, preset
from qwqlab.sampling.chain import Chain
from qwqlab.sampling.flags import BARE, FLAGS, REFUSED, UNTOUCHED, VARIABLES, explain_refused

# llama-completion's exit does not wait for the thread that prints (llama.cpp #22142): on so small
# a model half of its output is lost in half of the runs, and now and then a letter comes twice.
TRIES = 200  # on a busy machine that many are needed

SEED, N_QUICK, N_NIGHTLY = 2026, 40, 3000
N_QUICK_TEXTS, N_NIGHTLY_TEXTS = 10, 300


@pytest.fixture(scope="session")
def options(lacking: Callable[[str], NoReturn]) -> list[Option]:
    return read_arg_table() or lacking("llama.cpp's source is not here")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny_engine(tiny: Path) -> Iterator[Engine]:
    with Engine(tiny) as engine:
        yield engine


# The table.


def test_every_flag_of_llama_cpp_is_taken_or_refused_with_what_it_would_do(
    options: list[Option],
) -> None:
    unknown, wrong = [], []
    known = {flag for option in options if option.completion for flag in option.flags}
    for option in options:
        for flag in option.flags:
            if not (flag in FLAGS or flag in BARE or flag in UNTOUCHED):
                unknown += [] if explain_refused(flag) else [flag]
                continue
            takes = "int" if UNTOUCHED.get(flag) in ("N", "1") else option.kind
            valued = flag in FLAGS or bool(UNTOUCHED.get(flag))
            if flag not in known or takes != option.kind or valued != bool(option.kind):
                wrong.append(flag)
    assert not unknown, f"flags.py lacks {unknown}"
    assert not wrong, f"flags.py has {wrong} with another kind of value than llama.cpp"


def test_no_flag_of_the_lab_is_unknown_to_llama_cpp(options: list[Option]) -> None:
    known = {flag for option in options for flag in option.flags}
    assert {*FLAGS, *BARE, *UNTOUCHED} <= known
    patterns = [pattern for flags in REFUSED.values() for pattern in flags.split()]
    assert not [p for p in patterns if not any(fnmatchcase(flag, p) for flag in known)]


def test_the_variables_are_those_of_llama_cpp(options: list[Option]) -> None:
    theirs = {o.variable: o.flags for o in options if o.variable and FLAGS.get(o.flags[-1])}
    assert set(theirs) - set(VARIABLES) == {"LLAMA_ARG_THREADS", "LLAMA_ARG_MODEL"}
    assert all(flag in theirs[variable] for variable, flag in VARIABLES.items())


def test_a_refused_flag_is_refused_in_one_sentence(options: list[Option]) -> None:
    for option in options:
        for flag in option.flags:
            if flag not in {*FLAGS, *BARE, *UNTOUCHED}:
                with pytest.raises(SettingError) as caught:
                    parse_command(["llama-cli", flag, "1"])
                said = str(caught.value)
                assert said.startswith(f"{flag} is refused: in llama.cpp it would ")
                assert "\n" not in said and "leave it out" not in said


# Random flag lists.


@dataclass(frozen=True)
class Logged:
    """What llama-completion says of a command before it writes: None for all if it refuses."""

    chain: str
    numbers: dict[str, float]
    seed: int
    n_ctx: int
    n_batch: int
    stderr: str


NAMES_IN_THE_LOG = {"typical_p": "typ_p"}


def ask_llama_completion(tiny: Path, words: Sequence[str]) -> Logged | None:
    command = [str(tool("llama-completion")), "-m", str(tiny), "-p", "x", "-no-cnv", "--no-warmup"]
    for _ in range(TRIES):
        done = capture([*command, *words, "-n", "0"], timeout=60)
        if done.returncode != 0:
            return None
        if sizes := re.search(r"generate: n_ctx = (\d+), n_batch = (-?\d+)", done.stderr):
            break
    chain = re.search(r"sampler chain: (.*)", done.stderr)
    seed = re.search(r"sampler seed: (\d+)", done.stderr)
    assert chain and seed and sizes, done.stderr
    numbers = re.findall(r"(\w+) = (-?[\w.]+)", done.stderr.split("sampler params:")[1])
    found = {NAMES_IN_THE_LOG.get(name, name): float(value) for name, value in numbers[:19]}
    return Logged(chain[1].strip(), found, int(seed[1]), int(sizes[1]), int(sizes[2]), done.stderr)


def show_chain(engine: Engine, sampling: Sampling) -> str:
    """Return the stages of the lab's native chain, named as llama.cpp names them in its log."""
    with Chain(engine.model, sampling, 1) as chain:
        stages = [C.llama_sampler_chain_get(chain.handle, i) for i in range(len(chain.names))]
        names = [C.llama_sampler_name(stage).decode() for stage in stages]
    return "logits " + " ".join(f"-> {name}" for name in names)


NUMBERS = ("0 1 2 3 5 40 64 0.5 0.05 0.8 1.0 1.5 -1 -2 -0.5 1e2 1e-3 0x10 0x1p-2 .5 5. +1 007 "
           "inf -inf infinity nan 1e39 1e-50 99999999999 2000000000 1000000 256 512 abc "
           "0,8 0.8f 40.7 1e 3x --5 - 1e-40 -1e30 4294967295 4294967296 300").split()  # fmt: skip
NUMBERS += ["", " 7", "\t0.25", "7 ", "1 2"]
STAGES = (
    "penalties dry top_n_sigma top_k typ_p top_p min_p xtc temperature infill adaptive_p "
    "top-k topk Top_P nucleus temp typ top-n-sigma topnsigma adaptive-p minp"
).split()
ODD_STAGES = ["", " top_p", "top_p ", "top-n_sigma", "mirostat", "dist", "TOP_K", "typical"]
BIASES = [" 5 + 1", "5\t-\t2", "5+\n2"]
BIASES += ("5-1e2 5-2. 5+-2 5-infinity 5+inf 999999+3 -5+1 5 5* 5+ 5+x 5+1x 0x5+1 5+0x1p2 +5-1 "
          "99999999999+1 65+.5 5+nan 256-inf").split()  # fmt: skip
TEXTS = {
    "flash_attn": ["on", "off", "auto", "1", "0", "true", "disabled", "-1", "maybe", "ON", ""],
    "cache_type_k": ["f16", "f32", "bf16", "q3", "F16", ""],
    "rope_scaling": ["none", "linear", "yarn", "ntk", ""],
    "override_kv": ["a.b=int:3", "a=float:1e-6", "a=bool:true,b=str:x", "a=bool:yes", "a", "a=b",
                    "a=int:3x", "a=str:"],
    "seed": ["1", "42", "7x", " 9", "abc", "", "-5", "4294967294", "4294967296",
             "99999999999999999999999", "1.5"],
    "n_predict": ["0", "5", "-1", "-2", "x", "3x", "99999999999"],
    "n_ctx": ["0", "1", "8", "256", "300", "-5", "512", "x", "64k", "1e3"],
    "n_threads": ["1", "2", "0", "-1", "x", "1.5"],
    "dry_sequence_breakers": ["none", "\\n", ":", "", "a b", "\\x41", "\\"],
    "n_batch": ["1", "64", "2048", "x", "512k"],
    "prompt": ["x", "a\\nb"],
}  # fmt: skip
TEXTS["n_threads_batch"] = TEXTS["n_threads"]
TEXTS["cache_type_v"] = TEXTS["cache_type_k"]
TEXTS["n_ubatch"] = TEXTS["n_batch"]


def draw_value(rng: random.Random, flag: str) -> str:
    if flag not in FLAGS:
        kind = UNTOUCHED[flag]
        return rng.choice(["0", "1", "2x", "x", ""] if kind == "N" else [*kind.split(), "x"])
    name = FLAGS[flag].name
    if name == "samplers" and "seq" in flag:
        return "".join(rng.choice("edskypmxtia?z") for _ in range(rng.randint(0, 6)))
    if name == "samplers":
        stages = rng.sample(STAGES, rng.randint(0, 5)) + rng.sample(ODD_STAGES, rng.randint(0, 1))
        return ";".join(rng.sample(stages, len(stages)))
    if name == "logit_bias":
        return rng.choice(BIASES)
    return rng.choice(TEXTS.get(name, NUMBERS))


# Flags that name a file, or change the log that is compared.
LEFT_OUT = set(
    "-m --model --lora -f --file -bf --binary-file --log-disable --log-jsonl -lv --verbosity "
    "--log-verbosity -v --verbose --log-verbose --log-prefix --log-colors".split()
)


def draw_words(rng: random.Random, options: list[Option]) -> list[str]:
    words: list[str] = []
    taken = {*FLAGS, *BARE, *(flag for flag, kind in UNTOUCHED.items() if kind != "TEXT")}
    flags = [flag for o in options for flag in o.flags if flag in taken - LEFT_OUT]
    for flag in rng.sample(flags, rng.randint(1, 5)):
        under = flag.startswith("--") and rng.random() < 0.2
        spelled = "--" + flag[2:].replace("-", "_") if under else flag
        words.append(spelled)
        if flag in FLAGS or UNTOUCHED.get(flag):
            words.append(draw_value(rng, flag))
    if rng.random() < 0.03:
        words.append(rng.choice(["--top-k", "--warmth", "stray", "--temp=1", "-top-k", "--Temp"]))
    return words


# Where the lab refuses a value that llama.cpp takes.
STRICTER = (
    r"' is in the order twice",  # llama.cpp runs a stage twice
    r" (nan|-?inf) is out of range",  # llama.cpp computes with it
    r"'5\+nan' is not TOKEN_ID",
    r"--dynatemp-exp -",  # llama.cpp may sort what is no number
    r"^(-np|--parallel) .* is refused",  # with another number than 1 it shares the context
    r"last-n \d+ is out of range; give 0 to 1048576",  # llama.cpp keeps room for all of them
    r"--(rope|yarn)-[a-z-]+ -?\S+ is out of range; give",
)


def compare(tiny_engine: Engine, tiny: Path, words: list[str]) -> str:
    """Read a list on both sides; return which outcome they share, or fail."""
    logged = ask_llama_completion(tiny, words)
    where = f"words: {words}"
    try:
        command = parse_command(["llama-completion", *words])
    except SettingError as error:
        assert "\n" not in str(error), where
        if logged is None:
            return "refused by both"
        assert any(re.search(kind, str(error)) for kind in STRICTER), f"{error}; {where}"
        return "refused by the lab"
    assert logged is not None, f"llama-completion refuses this, the lab does not; {where}"
    check_numbers(command, logged, where)
    assert show_chain(tiny_engine, command.sampling) == logged.chain, where
    warned = "unable to match sampler by" in logged.stderr
    told = any("knows no sampler" in note for note in command.notes)
    assert told == warned or "''" in str(re.findall(r"by name ('')", logged.stderr)), where
    return "taken by both"


def check_numbers(command: Command, logged: Logged, where: str) -> None:
    for name, theirs in logged.numbers.items():
        ours = getattr(command.sampling, name)
        expected = BY_NAME[name].clip(theirs)
        assert math.isclose(ours, expected, rel_tol=1e-6, abs_tol=6e-4), f"{name}; {where}"
    drawn = any("any seed" in note for note in command.notes)
    if command.seed is not None and not drawn and "adaptive-p" not in logged.chain:
        assert command.seed == logged.seed, where  # llama.cpp logs none of adaptive-p
    n_ctx = command.loading.n_ctx or N_CTX
    if command.loading.rope_scaling != "yarn":  # its --fit makes a model of another length of it
        assert logged.n_ctx == -(-n_ctx // 256) * 256, where
    assert logged.n_batch == command.loading.n_batch, where


@pytest.mark.parametrize(
    "count", [N_QUICK, pytest.param(N_NIGHTLY, marks=pytest.mark.nightly)], ids=["quick", "long"]
)
def test_random_flags_are_read_as_llama_completion_reads_them(
    count: int, options: list[Option], tiny: Path, tiny_engine: Engine
) -> None:
    rng, outcomes = random.Random(SEED), Counter[str]()
    for _ in range(count):
        outcomes[compare(tiny_engine, tiny, draw_words(rng, options))] += 1
    print(f"seed {SEED}, {count} lists of flags: {dict(outcomes)}")
    assert outcomes["taken by both"] > count // 4
    assert outcomes["refused by both"] > count // 10


# Texts.


def write(tiny: Path, words: Sequence[str]) -> str:
    """Return llama-completion's text for flags: the one that it prints twice."""
    args = ["-m", str(tiny), *words, "-p", "x", "-n", "24", "-s", "7", "-no-cnv"]
    seen: Counter[str] = Counter()
    for _ in range(TRIES):
        done = run_tool("llama-completion", [*args, "--no-display-prompt"])
        if LAST_WORD in done.stderr:
            seen[done.stdout.removesuffix("\n\n").removesuffix(" [end of text]\n")] += 1
            if 2 in seen.values():
                break
    return max(seen, key=lambda text: seen[text])


def write_both(tiny: Path, engine: Engine, words: list[str]) -> tuple[str, str]:
    """Return llama-completion's text for flags, and the lab's."""
    command = parse_command(["llama-completion", *words])
    run = engine.generate("x", command.sampling, 7, 24)
    return write(tiny, words), run.text.replace("\0", "")  # llama-completion prints none


# Stages that act, so that the numbers that tune them count; a later flag goes over these.
ACTING = ("--xtc-probability 0.5 --xtc-threshold 0.02 --dynatemp-range 0.5 --dry-multiplier 0.8 "
          "--dry-allowed-length 1 --repeat-penalty 1.1").split()  # fmt: skip
FAR = ["-3", "-0.25", "1.75", "40", "-1e9", "inf", "-inf", "0", "1", "2"]


@pytest.mark.parametrize(
    "count",
    [N_QUICK_TEXTS, pytest.param(N_NIGHTLY_TEXTS, marks=pytest.mark.nightly)],
    ids=["quick", "long"],
)
def test_numbers_far_and_near_give_llama_completions_text(
    count: int, tiny: Path, tiny_engine: Engine
) -> None:
    rng, stopped = random.Random(SEED), 0
    for _ in range(count):
        order = ";".join(rng.sample(STAGES[:9] + STAGES[10:11], rng.randint(2, 6)))
        words = ["--samplers", order, *ACTING]
        for setting in rng.sample(SETTINGS, 5):
            words += [setting.flags[0], rng.choice(FAR)]
        try:
            theirs, ours = write_both(tiny, tiny_engine, words)
        except SettingError as error:
            assert re.search(r"is out of range|is not a whole|in the order twice", str(error)), (
                words
            )
            stopped += 1
            continue
        assert ours == theirs, words
    print(f"seed {SEED}, {count} lists of numbers, {stopped} of them refused")
    assert stopped < 0.9 * count


@pytest.mark.parametrize(
    "words",
    [["-l", "65-1e2", "-l", "66+2."], ["-l", "65+inf"], ["-l", "65-infinity", "-l", "65+1"],
     ["-l", "999999+3", "--temp", "2"], ["--samplers", "top_k; top_p; temperature", "--temp", "2"],
     ["--repeat_penalty", "1.5", "--top_k", "20"], ["--ignore-eos", "-l", "65-3"],
     ["-e"], ["--temp", "1.5x"], ["-np", "1", "--jinja"]],
    ids=" ".join,
)  # fmt: skip
def test_flags_that_people_bring_give_llama_completions_text(
    words: list[str], tiny: Path, tiny_engine: Engine
) -> None:
    theirs, ours = write_both(tiny, tiny_engine, words)
    assert ours == theirs


@pytest.mark.parametrize(
    "line, said",
    [
        ("-np 4", "-np 4 is refused: in llama.cpp it would share the context among several"),
        ("—temp 0.7", "'—temp' begins with a typographic dash; write --temp"),
        ("-p “Hi there”", "has typographic quotes"),
        ("--seed 99999999999999999999", "out of range"),
    ],
)
def test_what_a_paste_has_broken_is_named(line: str, said: str) -> None:
    with pytest.raises(SettingError, match=re.escape(said)):
        parse_command(f"llama-cli {line}")


def test_biases_whose_sum_is_no_number_are_refused(tiny_engine: Engine) -> None:
    for sampling in (
        Sampling(logit_bias=("5+inf", "5-inf")),
        Sampling(logit_bias=("256+inf",), ignore_eos=True),
    ):
        with pytest.raises(SettingError, match="are inf and -inf; give one"):
            tiny_engine.generate("x", sampling, n_predict=2)


def test_a_bias_on_no_token_is_said_to_have_no_effect(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--prompt", "x", "-n", "1", "-l", "999999+3"]) == 0
    why = "the model's tokens have the ids 0 to 49151"
    assert f"qwqlab: logit_bias=999999+3 has no effect: {why}\n" in capsys.readouterr().err


# A GGUF's own settings.

OWN: dict[str, Any] = {
    "general__sampling__temp": 1.7, "general__sampling__top_k": 7,
    "general__sampling__sequence": "top_k;temp; min_p", "general__sampling__penalty_repeat": 1.2,
    "general__sampling__penalty_last_n": -4, "general__sampling__mirostat_eta": 0.3,
    "general__sampling__min_p": "0.25abc", "general__sampling__xtc_threshold": "none",
    "general__sampling__top_p": [0.1], "general__sampling__dry_multiplier": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gguf(tmp_path_factory.mktemp("own") / "own.gguf", **OWN)


def test_a_gguf_brings_settings_that_flags_and_presets_go_over(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Engine(own) as engine:
        assert engine.sampling == Sampling(
            samplers=("top_k", "temperature"), temp=1.7, top_k=7, repeat_penalty=1.2,
            repeat_last_n=0, mirostat_lr=0.3, min_p=0.25,
        )  # fmt: skip
        for words in ([], ["--temp", "0.3"], ["--samplers", "min_p"], ["--sampling-seq", "t"],
                      ["--mirostat", "2", "--top-k", "3"]):  # fmt: skip
            args = ["-p", "x", "-n", "24", "-s", "7", *words, "--json"]
            assert main(["generate", "-m", str(own), *args]) == 0
            said = capsys.readouterr()
            assert "the GGUF brings settings of its own: samplers=('top_k', 'temperature')," in (
                said.err
            )
            assert ("own order of samplers counts" in said.err) == ("--sampling-seq" in words)
            text = json.loads(said.out)["text"].replace("\0", "")
            assert text == write(own, words), words
        assert engine.generate("x", seed=7, n_predict=24).request.sampling == engine.sampling
    args = ["generate", "-m", str(own), "--preset", "official", "-p", "x", "-n", "1", "--json"]
    assert main(args) == 0
    said = capsys.readouterr()
    assert "brings" not in said.err
    assert json.loads(said.out)["chain"] == list(preset("official").chain())


def test_inspect_lists_the_settings_that_a_gguf_brings(
    own: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(own)]) == 0
    line = "sampling   temp 1.700000, top_k 7, sequence top_k;temp; min_p, penalty_repeat 1.200000"
    assert line in capsys.readouterr().out
    assert main(["inspect", str(tiny)]) == 0
    assert "sampling" not in capsys.readouterr().out


def test_settings_of_a_gguf_that_llama_cpp_refuses_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = make_tiny_gguf(tmp_path / "bad.gguf", general__sampling__penalty_repeat=0.0)
    assert main(["generate", "-m", str(bad), "-p", "x", "-n", "1"]) == 1
    assert "the GGUF brings a setting that llama.cpp refuses: --repeat-penalty 0.0 is out of" in (
        capsys.readouterr().err
    )
    assert main(["generate", "-m", str(bad), "-p", "x", "-n", "1", "--repeat-penalty", "1"]) == 0


def test_tokens_that_a_gguf_suppresses_are_not_drawn(
    tmp_path: Path, llama_completion: Callable[[Sequence[str]], str]
) -> None:
    banned = list(range(200))
    path = make_tiny_gguf(tmp_path / "mute.gguf", tokenizer__ggml__suppress_tokens=banned)
    with Engine(path) as engine:
        run = engine.generate("x", Sampling(), 7, 24)
    assert run.tokens and min(run.tokens) >= 200
    assert run.text.replace("\0", "") == write(path, [])
