"""llama.cpp command lines: read, written, and run by llama.cpp's own program.

`parse_command` reads what people paste, the article's commands included. `command_of` makes a
command out of a request, `Command.line` prints it, and `complete` lets llama-completion run it:
the proof that it reproduces the run token for token.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import SettingError, ToolchainError
from ..llamacpp import LOADING_FLAGS, Loading, escape, read_prompt, run_tool, unescape
from .run import Request
from .sampling import Sampling
from .settings import LETTERS, SETTINGS, STAGES, check_order, check_seed

_STAGE_OF_LETTER = dict(zip(LETTERS, STAGES, strict=True))
_SAMPLING_FLAGS = {flag: setting for setting in SETTINGS for flag in setting.flags}
# The words before a shell's first pipe, redirection or separator.
_WORDS = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^'"\\|<>&;])*""", re.S)
_LOADING_FLAGS = {flag: name for name, flags in LOADING_FLAGS.items() for flag in flags}
# Flags of llama-completion and llama-cli that don't touch the tokens, with how many values follow.
_HARMLESS = {"-no-cnv": 0, "--no-conversation": 0, "--no-display-prompt": 0, "--no-warmup": 0,
             "--simple-io": 0, "--color": 1, "--prio": 1, "--prio-batch": 1, "--log-disable": 0,
             "--no-perf": 0, "-fit": 1, "--fit": 1}  # fmt: skip
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


class Loaded(Protocol):
    """A model and how it is loaded: an engine, or what a sweep knows of one."""

    @property
    def path(self) -> str:
        """The model's file."""

    @property
    def loading(self) -> Loading:
        """How it is loaded."""


def command_of(request: Request, engine: Loaded) -> Command:
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
    return _Reader(words, base or Sampling()).read()


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


class _Reader:
    """One pass over the arguments."""

    def __init__(self, words: list[str], base: Sampling) -> None:
        self.base = base
        if words and not words[0].startswith("-"):
            words = words[1:]
        self.words = words
        self.sampling: dict[str, Any] = {}
        self.loading: dict[str, Any] = {}
        self.rest: dict[str, Any] = {}
        self.breakers: list[str] | None = None
        self.notes: list[str] = []
        self.escapes = True

    def read(self) -> Command:
        while self.words:
            self._flag(self.words.pop(0))
        if self.breakers is not None:
            read = unescape if self.escapes else str
            self.sampling["dry_sequence_breakers"] = tuple(read(b) for b in self.breakers)
        if self.escapes and "prompt" in self.rest:
            self.rest["prompt"] = unescape(self.rest["prompt"])
        return Command(
            self.base.with_(**self.sampling),
            Loading(**self.loading),
            **self.rest,
            notes=tuple(self.notes),
        )

    def _flag(self, flag: str) -> None:
        if flag in _SAMPLING_FLAGS:
            setting = _SAMPLING_FLAGS[flag]
            self._set(self.sampling, setting.name, flag, self._number(flag, setting.kind))
        elif flag == "--samplers":
            self._set(self.sampling, "samplers", flag, check_order(self._value(flag)))
        elif flag in ("--sampling-seq", "--sampler-seq"):
            self._set(self.sampling, "samplers", flag, self._letters(flag))
        elif flag == "--dry-sequence-breaker":
            value = self._value(flag)
            self.breakers = [] if value == "none" else [*(self.breakers or []), value]
        elif flag in ("-l", "--logit-bias"):
            before = self.sampling.get("logit_bias", ())
            self.sampling["logit_bias"] = (*before, self._value(flag))
        elif flag == "--ignore-eos":
            self.sampling["ignore_eos"] = True
        elif flag in _LOADING_FLAGS:
            self._loading(flag, _LOADING_FLAGS[flag])
        elif flag in ("-m", "--model"):
            self._set(self.rest, "model", flag, self._value(flag))
        elif flag in ("-p", "--prompt"):
            self._set(self.rest, "prompt", flag, self._value(flag))
        elif flag in ("-f", "--file"):
            # llama.cpp drops one newline from the end of the file.
            prompt = read_prompt(self._value(flag)).removesuffix("\n")
            self._set(self.rest, "prompt", flag, prompt)
        elif flag in ("-s", "--seed"):
            self._set(self.rest, "seed", flag, check_seed(self._number(flag, int)))
        elif flag in ("-n", "--predict", "--n-predict"):
            self._set(self.rest, "n_predict", flag, self._number(flag, int))
        elif flag == "--no-escape":
            self.escapes = False
        elif flag in _HARMLESS:
            del self.words[: _HARMLESS[flag]]
        else:
            near = difflib.get_close_matches(flag, (*_SAMPLING_FLAGS, *_LOADING_FLAGS), 1)
            hint = f"do you mean {near[0]}?" if near else "leave it out"
            if not flag.startswith("-"):
                hint = "a prompt goes after --prompt, a file that holds one after --file"
            raise SettingError(f"{flag!r} is not a flag that the lab knows; {hint}")

    def _set(self, target: dict[str, Any], name: str, flag: str, value: Any) -> None:
        if name in target:
            self.notes.append(f"{flag} is given twice: {value} counts, {target[name]} does not")
        target[name] = value

    def _loading(self, flag: str, name: str) -> None:
        value = self._value(flag)
        if name in ("override_kv", "lora"):
            self.loading[name] = (*self.loading.get(name, ()), *value.split(","))
            return
        if name == "flash_attn":
            value = {"1": "on", "true": "on", "enabled": "on", "0": "off", "false": "off",
                     "disabled": "off", "-1": "auto"}.get(value, value)  # fmt: skip
        kind = type(getattr(Loading(), name))
        if name == "n_gpu_layers":
            value = {"auto": "-1", "all": "-2"}.get(value, value)
        self._set(self.loading, name, flag, value if kind is str else _cast(flag, kind, value))

    def _value(self, flag: str) -> str:
        if not self.words:
            raise SettingError(f"{flag} needs a value")
        return self.words.pop(0)

    def _number(self, flag: str, kind: type) -> Any:
        return _cast(flag, kind, self._value(flag))

    def _letters(self, flag: str) -> tuple[str, ...]:
        letters = self._value(flag)
        unknown = set(letters) - set(_STAGE_OF_LETTER)
        if unknown:
            raise SettingError(f"{flag} {letters}: {sorted(unknown)} name no sampler")
        return check_order(_STAGE_OF_LETTER[letter] for letter in letters)


def _cast(flag: str, kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise SettingError(f"{flag} {text!r} is not {what}") from None
