"""The commands of `qwqlab` that look at one file and say what they found: grade, inspect, ...

They give 0 for a good verdict, 1 for a bad one, and 2, with a sentence, for what they can't judge.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import SettingError

REFUSED = 2


def add_commands(add: Callable[..., Any]) -> None:
    """Add them to the parser of `cli`: `add` is its function of a name, a function and a text."""
    inspect = add("inspect", _inspect, "say what a GGUF, or a model's folder, holds", REFUSED)
    inspect.add_argument("file", help="a .gguf file, or a folder to check for its pad and stops")
    inspect.add_argument("--json", action="store_true", help="one JSON object on stdout")
    tokenize = add("tokenize", _tokenize, "make tokens of a text file", REFUSED)
    tokenize.add_argument("--tokenizer", required=True, help="qwq-32b, a name, a GGUF or a folder")
    tokenize.add_argument("--engine", default="llama.cpp", help="llama.cpp or transformers")
    tokenize.add_argument("--file", required=True, type=Path, help="text in UTF-8")
    tokenize.add_argument(
        "--no-special", action="store_true", help="read <|im_end|> and its like as letters"
    )
    tokenize.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _inspect(args: argparse.Namespace, _: list[str]) -> int:
    from . import inspection, paths
    from .fetch import model_path

    if paths.from_user(args.file).is_dir():
        from .stops import check_stops

        check = check_stops(args.file)
        print(json.dumps(check.to_dict()) if args.json else check.show())
        return 0 if check.ok else 1
    values = inspection.describe(model_path(args.file))
    print(json.dumps(values) if args.json else inspection.show_description(values))
    return 0


def _tokenize(args: argparse.Namespace, _: list[str]) -> None:
    from .tokenizers import open_tokenizer

    text = _read_text(args.file)
    with open_tokenizer(args.tokenizer, args.engine) as tokenizer:
        (ids,) = tokenizer.encode([text], parse_special=not args.no_special)
        pieces = tokenizer.pieces(ids)
    if args.json:
        values = {"ids": ids, "pieces": pieces, "engine": args.engine, "tokenizer": args.tokenizer}
        print(json.dumps(values))
    else:
        print(*ids)


def _read_text(path: Path) -> str:
    from .prompt_text import read_prompt

    text = read_prompt(path)
    if any("\ud800" <= letter < "\ue000" for letter in text):
        raise SettingError(f"{path} is not text in UTF-8; convert it first")
    return text
