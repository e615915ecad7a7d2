"""`qwqlab`: the lab for a shell. What a program reads goes to stdout, talk to stderr.

Each module here adds a group of commands, and imports what a command uses when that command runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import __version__
from ..errors import QwqlabError, SettingError
from ..progress import guard_output, say
from ..sampling import name_flags, split_flags
from . import course, models, quant, runs, tuning


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit status: 0, or 1 with a sentence if it fails.

    Commands that judge a file return 1 for a bad verdict, and 2 if they could not judge it.
    """
    guard_output()
    parser = _make_parser()
    words = list(sys.argv[1:] if argv is None else argv)
    flags: list[str] = []
    if words[:1] == ["generate"]:  # argparse would take -hf for -h, and -mg for -m
        flags, rest = split_flags(words[1:], runs.OWN_FLAGS)
        words = ["generate", *rest]
    args, unknown = parser.parse_known_args(words)
    args.flags = [*flags, *unknown]
    if unknown and args.command != "generate":
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        _check_target(getattr(args, "json", None))
        return int(args.run(args) or 0)
    except QwqlabError as error:
        sentence = name_flags(str(error)) if args.command == "generate" else str(error)
        say(f"qwqlab: {sentence}")
        return int(args.refused)
    except BrokenPipeError:  # the program that reads our pipe has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = error.filename or "the output"
        say(f"qwqlab: {where} cannot be read or written: {error.strerror}")
        return int(args.refused)
    except KeyboardInterrupt:
        say("qwqlab: stopped; what had finished is kept")
        return 130


def _check_target(target: object) -> None:
    """Raise SettingError before the work, not after it, if its result could not be written."""
    if isinstance(target, Path):  # elsewhere --json is a switch
        if target.is_dir() or not os.access(target.absolute().parent, os.W_OK):
            raise SettingError(
                f"{target} cannot be written; give --json a file in a folder of yours"
            )


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Show the default of an option that takes a value and has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        plain = not action.default or "default" in (action.help or "")
        return action.help if plain else super()._get_help_string(action)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qwqlab", allow_abbrev=False, description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--version", action="version", version=f"qwqlab {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], int | None], text: str, refused: int = 1
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=text, description=text, allow_abbrev=False, formatter_class=_Help
        )
        command.set_defaults(run=run, refused=refused)
        return command

    for group in (runs, models, quant, tuning, course):
        group.add_commands(add)
    return parser
