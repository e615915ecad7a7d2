"""llama.cpp command lines: read, written, and run by llama.cpp's own program.

`parse_command` reads what people paste, the article's commands included. `command_of` makes a
command out of a request, `Command.line` prints it, and `complete` lets llama-completion run it:
the proof that it reproduces the run token for token.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SettingError, ToolchainError
from ..llamacpp import LOADING_FLAGS, THREADS, Loading, escape, run_tool, unescape
from .flags import BARE, FLAGS, UNTOUCHED, VARIABLES, check_untouched, explain_refused
from .run import Request
from .sampling import Sampling, add_own
from .settings import SETTINGS

if TYPE_CHECKING:
    from .engine import Engine

# The words before a shell's first pipe, redirection or separator.
_WORDS = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^'"\\|<>&;])*""", re.S)
_DASHES = "—–‒−‐"
_ADDRESS = re.compile(r"[^\s,]+:\d+")
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
            count = 2 if words[0] in FLAGS else 1
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


def complete(command: Command, servers: Sequence[str] = ()) -> str:
    """Return the text that llama-completion writes for a command, without what it adds at the end.

    servers: addresses of ggml-rpc-servers, "192.168.0.11:50052", among which it divides the model.
    If one of them dies, llama-completion dies too, and this process does not.

    llama-completion exits without waiting for its printing thread (llama.cpp #22142). If the end
    of a text is missing, it runs again. Raise ToolchainError if that doesn't help, or if it fails.
    """
    if isinstance(servers, str) or not all(_ADDRESS.fullmatch(str(each)) for each in servers):
        raise SettingError(
            f"servers={servers!r}: give a list of addresses, each with its port, such as "
            '["192.168.0.11:50052"]'
        )
    words = [*command.argv(), *(["--rpc", ",".join(servers)] if servers else [])]
    for _ in range(_ATTEMPTS):
        try:
            done = run_tool("llama-completion", words)
        except ToolchainError as error:
            if not servers:
                raise
            why = str(error).rpartition(": ")[2]
            raise ToolchainError(
                f"The run on {', '.join(servers)} is lost ({why}): see that each server runs, and "
                "run it again."
            ) from error
        if _LAST_WORD in done.stderr:
            return done.stdout.removesuffix("\n\n").removesuffix(" [end of text]\n")
    raise ToolchainError("llama-completion lost the end of its text three times; run it again")


def parse_command(
    line: str | Sequence[str],
    base: Sampling | None = None,
    own: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Command:
    """Read a llama.cpp command line, given as text or as a list of arguments.

    A shell's redirections and pipes end the command; backslash-newlines join lines. As in
    llama.cpp the last of a repeated flag counts, a name may have underscores for dashes, and a
    number ends where its digits end; notes say what was read otherwise than it is written. A
    value that no flag sets is the GGUF's own (own, from `read_own_settings`) or else that of
    base, llama.cpp's defaults if you give none. environ holds variables such as
    LLAMA_ARG_TOP_K, which set a flag unless the command does.

    Raise SettingError for what is no flag, for a value that llama.cpp refuses, and for a flag
    that does what the lab does not, with what that is.

    >>> parse_command("llama-cli -m x.gguf --temp 0.6 --top_k 40 -s 1").sampling.top_k
    40
    """
    words = _split(line) if isinstance(line, str) else list(line)
    if words and not words[0].startswith("-"):
        words = words[1:]  # the program
    reader = _Reader()
    try:
        if environ is not None:
            reader.read_variables(environ)
        reader.read(words)
        return reader.finish(base or Sampling(), own or {})
    except SettingError as error:
        raise SettingError(name_flags(str(error), reader.spelled)) from None


def split_flags(words: Sequence[str], own: Container[str]) -> tuple[list[str], list[str]]:
    """Part words into llama.cpp's flags with their values, and the rest.

    own: flags of another program that are among the words; they belong to the rest.
    """
    flags: list[str] = []
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        flag = _spell(word)
        known = flag in FLAGS or flag in BARE or flag in UNTOUCHED or explain_refused(flag)
        if word in own or not known:
            rest.append(word)
            continue
        flags.append(word)
        if left and (flag in FLAGS or UNTOUCHED.get(flag)):
            flags.append(left.pop(0))
    return flags, rest


# Of each setting the plainest of its flags.
_FLAG_OF_NAME = {
    **{flag.name: spelled for spelled, flag in FLAGS.items()},
    **{setting.name: setting.flags[0] for setting in SETTINGS},
    "prompt": "--prompt",
}
_NAMES = re.compile(rf"(?<![\w'-])({'|'.join(_FLAG_OF_NAME)})\b(=?)")


def name_flags(sentence: str, given: Mapping[str, str] | None = None) -> str:
    """Return a sentence about settings with the flags by which a command sets them.

    given: those that it has, by the names of the settings.

    >>> name_flags("n_ctx=-1 is out of range; raise n_ctx")
    '--ctx-size -1 is out of range; raise --ctx-size'
    """

    def name(match: re.Match[str]) -> str:
        named, equals = match.groups()
        flag = (given or {}).get(named, _FLAG_OF_NAME[named])
        if equals:
            return f"{flag} "
        # Alone, the names of others are those of stages, or words.
        alone = named == "n_predict" or (named in LOADING_FLAGS and "_" in named)
        return flag if alone else match[0]

    return _NAMES.sub(name, sentence)


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


def _spell(word: str) -> str:
    """Return a flag as llama.cpp looks it up: after two dashes an underscore is a dash."""
    return word.replace("_", "-") if word.startswith("--") else word


def _brief(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse(word: str) -> SettingError:
    flag, equals, value = _spell(word).partition("=")
    if equals and (flag in FLAGS or flag in UNTOUCHED):
        how = f"write its value as a word of its own: {flag} {value!r}"
        return SettingError(f"{word!r} is no flag to llama.cpp; {how}")
    if what := explain_refused(_spell(word)):
        return SettingError(f"{word} is refused: in llama.cpp it would {what}")
    if word.lstrip("-")[:1] in tuple(_DASHES):
        plain = f"--{word.lstrip(_DASHES + '-')}"
        return SettingError(f"{word!r} begins with a typographic dash; write {plain}")
    if any(quote in word for quote in "“”„‘’"):
        return SettingError(f"{word!r} has typographic quotes, which quote nothing; write \" or '")
    near = difflib.get_close_matches(flag, [*FLAGS, *BARE, *UNTOUCHED], 1, 0.75)
    hint = f"do you mean {near[0]}?" if near else "`qwqlab generate --help` lists those it knows"
    if not word.startswith("-"):
        hint = "a prompt goes after --prompt, a file that holds one after --file"
    return SettingError(f"{word!r} is not a flag of llama.cpp; {hint}")


# Flags of which llama.cpp keeps one number: the last that is given.
_INVERSE = {"rope_scale": "rope_freq_scale", "rope_freq_scale": "rope_scale"}


class _Reader:
    """What the flags of a command set, one after another."""

    def __init__(self) -> None:
        self.sampling: dict[str, Any] = {}
        self.loading: dict[str, Any] = {}
        self.rest: dict[str, Any] = {}
        self.notes: list[str] = []
        self.spelled: dict[str, str] = {}  # by which flag a setting is set
        self._variables: dict[str, str] = {}  # from which a setting has its value
        self._listed = False  # whether --samplers was among them

    def read_variables(self, environ: Mapping[str, str]) -> None:
        """Read the variables that set flags."""
        for variable, flag in VARIABLES.items():
            if variable in environ:
                self.set(flag, environ[variable], variable)
        unread = {name for name in environ if name.startswith("LLAMA_ARG_")}
        if unread := unread - {*VARIABLES, THREADS, "LLAMA_ARG_MODEL"}:
            self.notes.append(f"the lab does not read {', '.join(sorted(unread))}")
        home = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        for place in (Path("/etc"), Path(home)):
            if (place / "llama.cpp/config.ini").is_file():
                self.notes.append(f"the lab does not read {place}/llama.cpp/config.ini")

    def read(self, words: Sequence[str]) -> None:
        """Read the words of a command."""
        left = list(words)
        while left:
            word = left.pop(0)
            flag = _spell(word)
            if flag in BARE:
                where, name, value = BARE[flag]
                getattr(self, where)[name] = value
            elif UNTOUCHED.get(flag) == "":
                pass
            elif flag not in FLAGS and flag not in UNTOUCHED:
                raise _refuse(word)
            elif not left:
                raise SettingError(f"{flag} needs a value")
            elif flag in FLAGS:
                self.set(flag, left.pop(0))
            else:
                check_untouched(flag, left.pop(0))

    def set(self, flag: str, text: str, variable: str = "") -> None:
        """Set what a flag with a value sets. variable: the one that stands for the flag."""
        of = FLAGS[flag]
        values, name = getattr(self, of.where), of.name
        self.spelled[name] = variable or flag
        value, note = of.read(variable or flag, text)
        if note:
            self.notes.append(note)
        if value is None:
            return
        if of.adds:
            none = name == "dry_sequence_breakers" and text == "none"
            values[name] = () if none else (*values.get(name, ()), *value)
            return
        if name in values:
            old = self._variables.pop(name, "")
            twice = f"{old} is set, but" if old else f"{flag} is given twice:"
            self.notes.append(f"{twice} {_brief(value)} counts, {_brief(values[name])} does not")
        if (inverse := _INVERSE.get(name, "")) and values.pop(inverse, None) is not None:
            self.notes.append(f"{flag} counts, {_FLAG_OF_NAME[inverse]} before it does not")
        values[name] = value
        self._listed |= flag == "--samplers"
        if variable:
            self._variables[name] = variable

    def finish(self, base: Sampling, own: Mapping[str, Any]) -> Command:
        """Return the command, with what it does not set from own and base."""
        sampling, rest = self.sampling, self.rest
        if "samplers" in own and "samplers" in sampling and not self._listed:
            del sampling["samplers"]
            self.notes.append(
                "the GGUF's own order of samplers counts: in llama.cpp --samplers goes over it, "
                "and --sampling-seq does not"
            )
        if rest.pop("escapes", True):
            if "prompt" in rest:
                rest["prompt"] = unescape(rest["prompt"])
            if "dry_sequence_breakers" in sampling:
                breakers = map(unescape, sampling["dry_sequence_breakers"])
                sampling["dry_sequence_breakers"] = tuple(breakers)
        self.notes += [f"{variable} is set, and counts" for variable in self._variables.values()]
        whole = add_own(base, own, sampling)
        return Command(whole, Loading(**self.loading), **rest, notes=tuple(self.notes))
