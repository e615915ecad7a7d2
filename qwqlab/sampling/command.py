"""llama.cpp command lines: read, written, and run by llama.cpp's own program.

`parse_command` reads what people paste, the article's commands included. `command_of` makes a
command out of a request, `Command.line` prints it, and `complete` lets llama-completion run it:
the proof that it reproduces the run token for token.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import SettingError, ToolchainError
from ..llamacpp import LOADING_FLAGS, Loading, escape, read_prompt, run_tool, unescape
from .run import Request
from .sampling import Sampling
from .settings import LETTERS, SETTINGS, STAGES, check_order, check_seed

if TYPE_CHECKING:
    from .engine import Engine

_STAGE_OF_LETTER = dict(zip(LETTERS, STAGES, strict=True))
# The words before a shell's first pipe, redirection or separator.
_WORDS = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^'"\\|<>&;])*""", re.S)
# Flags of llama-completion and llama-cli that don't touch the tokens, with how many values follow.
_HARMLESS = {"-no-cnv": 0, "--no-conversation": 0, "--no-display-prompt": 0, "--no-warmup": 0,
             "--simple-io": 0, "--color": 1, "--prio": 1, "--prio-batch": 1, "--log-disable": 0,
             "--no-perf": 0, "-fit": 1, "--fit": 1}  # fmt: skip
# Flags that stand alone.
_BARE = {"--ignore-eos", *(flag for flag, n_values in _HARMLESS.items() if not n_values)}

_ATTEMPTS = 3
# llama-completion's last word on stderr, after the whole text went to stdout.
_LAST_WORD = "graphs reused"


@dataclass(frozen=True)
class Command:
    """A llama.cpp command line, understood. notes holds a sentence for each oddity in it."""

    sampling: Sampling = field(default_factory=Sampling)
    loading: Loading = field(default_factory=Loading)
    model: str = ""
    prompt: str = ""
    seed: int | None = None
    n_predict: int = -1
    notes: tuple[str, ...] = ()

    def argv(self) -> list[str]:
        """Return llama-completion's arguments for this run, without the program itself.

        Every sampling number is given, since llama-completion fills gaps from the GGUF, which may
        have sampling defaults of its own. The prompt is one argument: Linux allows it 128 KiB.
        """
        return [
            *("--model", self.model),
            *("--prompt", escape(self.prompt)),
            *(["--seed", str(self.seed)] if self.seed is not None else []),
            *("--n-predict", str(self.n_predict)),
            *_write_sampling(self.sampling),
            *self.loading.flags(),
            *("-no-cnv", "--no-display-prompt"),
        ]

    def line(self, width: int = 0) -> str:
        """Return the command, quoted for a shell.

        width: break it between flags into lines of at most so many characters, if no flag with
        its value is longer.
        """
        words, lines = self.argv(), ["llama-completion"]
        while words:
            count = 1 if words[0] in _BARE else 2
            flag, words = shlex.join(words[:count]), words[count:]
            longer = f"{lines[-1]} {flag}"
            if not width or len(longer) + 2 <= width:
                lines[-1] = longer
            else:
                lines.append(f"  {flag}")
        return " \\\n".join(lines)


def _write_sampling(sampling: Sampling) -> list[str]:
    flags = ["--samplers", ";".join(sampling.samplers)]
    for setting in SETTINGS:
        flags += [setting.flags[0], repr(getattr(sampling, setting.name))]
    for breaker in sampling.dry_sequence_breakers or ("none",):
        flags += ["--dry-sequence-breaker", escape(breaker)]
    for bias in sampling.logit_bias:
        flags += ["--logit-bias", bias]
    return [*flags, "--ignore-eos"] if sampling.ignore_eos else flags


def command_of(request: Request, engine: Engine) -> Command:
    """Return the llama-completion command that reproduces a request in a process of its own.

    A run of width 1 is reproduced token for token, and so is a run from a batch if
    `engine.width_independent`; otherwise a run from a batch and the command may differ.
    """
    r = request
    return Command(r.sampling, engine.loading, engine.path, r.prompt, r.seed, r.n_predict)


def complete(command: Command) -> str:
    """Return the text that llama-completion writes for a command, without what it adds at the end.

    llama-completion exits without waiting for its printing thread (llama.cpp #22142). If the end
    of a text is missing, it runs again. Raise ToolchainError if that doesn't help.
    """
    for _ in range(_ATTEMPTS):
        done = run_tool("llama-completion", command.argv())
        if _LAST_WORD in done.stderr:
            return done.stdout.removesuffix("\n\n").removesuffix(" [end of text]\n")
    raise ToolchainError("llama-completion lost the end of its text three times; run it again")


def parse_command(line: str | Sequence[str], base: Sampling | None = None) -> Command:
    """Read a llama.cpp command line, given as text or as a list of arguments.

    A shell's redirections and pipes end the command; backslash-newlines join lines. As in
    llama.cpp the last of a repeated flag counts. base: values for what no flag sets, llama.cpp's
    defaults if you give none. Raise SettingError for a flag that the lab doesn't know.

    >>> parse_command("llama-cli -m x.gguf --temp 0.6 --top-k 40 -s 1").sampling.top_k
    40
    """
    words = _split(line) if isinstance(line, str) else list(line)
    if words and not words[0].startswith("-"):
        words = words[1:]  # the program
    return _read(words, base or Sampling())


def _split(line: str) -> list[str]:
    line = line.replace("\\\n", " ")
    found = _WORDS.match(line)
    words = found.group() if found else ""
    operator = line[len(words) : len(words) + 1]
    if operator in ("<", ">"):
        line = re.sub(r"\s\d$", "", words)  # without the 2 of `2>&1`
    elif operator in ("|", "&", ";"):
        line = words
    try:
        return shlex.split(line)
    except ValueError as error:
        raise SettingError(f"the command line does not parse: {error}") from None


def _read_letters(letters: str) -> tuple[str, ...]:
    unknown = set(letters) - set(_STAGE_OF_LETTER)
    if unknown:
        raise SettingError(f"--sampling-seq {letters}: {sorted(unknown)} name no sampler")
    return check_order(_STAGE_OF_LETTER[letter] for letter in letters)


def _read_file(path: str) -> str:
    """Return a prompt file; llama.cpp drops one newline from its end."""
    return read_prompt(path).removesuffix("\n")


# What llama.cpp also takes for a value.
_SYNONYMS = {
    "flash_attn": {"1": "on", "true": "on", "enabled": "on", "0": "off", "false": "off",
                   "disabled": "off", "-1": "auto"},
    "n_gpu_layers": {"auto": "-1", "all": "-2"},
}  # fmt: skip
# Of each flag with a value: where the value belongs, its name there, and what reads it.
_FLAGS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    **{flag: ("sampling", s.name, s.kind) for s in SETTINGS for flag in s.flags},
    **{
        flag: ("loading", name, type(getattr(Loading(), name)))
        for name, flags in LOADING_FLAGS.items()
        for flag in flags
    },
    "--samplers": ("sampling", "samplers", check_order),
    **dict.fromkeys(("--sampling-seq", "--sampler-seq"), ("sampling", "samplers", _read_letters)),
    **dict.fromkeys(("-m", "--model"), ("rest", "model", str)),
    **dict.fromkeys(("-p", "--prompt"), ("rest", "prompt", str)),
    **dict.fromkeys(("-f", "--file"), ("rest", "prompt", _read_file)),
    **dict.fromkeys(("-s", "--seed"), ("rest", "seed", int)),
    **dict.fromkeys(("-n", "--predict", "--n-predict"), ("rest", "n_predict", int)),
}
# Flags that may be given several times, and add up.
_LISTS = {
    "--dry-sequence-breaker": ("sampling", "dry_sequence_breakers"),
    **dict.fromkeys(("-l", "--logit-bias"), ("sampling", "logit_bias")),
    "--override-kv": ("loading", "override_kv"),
    "--lora": ("loading", "lora"),
}


def _read(words: list[str], base: Sampling) -> Command:
    values: dict[str, dict[str, Any]] = {"sampling": {}, "loading": {}, "rest": {}}
    notes, escapes = [], True
    while words:
        flag = words.pop(0)
        if flag in _HARMLESS:
            del words[: _HARMLESS[flag]]
        elif flag == "--ignore-eos":
            values["sampling"]["ignore_eos"] = True
        elif flag == "--no-escape":
            escapes = False
        elif flag not in _FLAGS and flag not in _LISTS:
            near = difflib.get_close_matches(flag, _FLAGS, 1)
            hint = f"do you mean {near[0]}?" if near else "leave it out"
            if not flag.startswith("-"):
                hint = "a prompt goes after --prompt, a file that holds one after --file"
            raise SettingError(f"{flag!r} is not a flag that the lab knows; {hint}")
        elif not words:
            raise SettingError(f"{flag} needs a value")
        elif flag in _LISTS:
            where, name = _LISTS[flag]
            given = words.pop(0)
            more = given.split(",") if where == "loading" else [given]
            values[where][name] = (*values[where].get(name, ()), *more)
            if flag == "--dry-sequence-breaker" and given == "none":
                values[where][name] = ()
        else:
            where, name, read = _FLAGS[flag]
            given = words.pop(0)
            value = _read_value(flag, read, _SYNONYMS.get(name, {}).get(given, given))
            if name in values[where]:
                before = values[where][name]
                notes.append(f"{flag} is given twice: {value} counts, {before} does not")
            values[where][name] = value
    sampling, rest = values["sampling"], values["rest"]
    if escapes and "dry_sequence_breakers" in sampling:
        sampling["dry_sequence_breakers"] = tuple(map(unescape, sampling["dry_sequence_breakers"]))
    if escapes and "prompt" in rest:
        rest["prompt"] = unescape(rest["prompt"])
    if "seed" in rest:
        check_seed(rest["seed"])
    loading = Loading(**values["loading"])
    return Command(base.with_(**sampling), loading, **rest, notes=tuple(notes))


def _read_value(flag: str, read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except SettingError:
        raise
    except ValueError:
        what = "a whole number" if read is int else "a number"
        raise SettingError(f"{flag} {text!r} is not {what}") from None
