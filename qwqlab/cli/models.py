"""The commands on model files: fetch one, show what it holds, use its template or tokenizer.

Those that judge a file return 0 for a good verdict, 1 for a bad one, and 2, with a sentence, for
what they cannot judge.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import FetchError, SettingError
from ..progress import give


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add fetch, import, path, render, inspect and tokenize to the parser."""
    add("fetch", _fetch, "download a model, unless it is here").add_argument("name")
    bring = add("import", _import, "add a GGUF of yours to the lab")
    bring.add_argument("file")
    bring.add_argument("name", nargs="?")
    path = add("path", _path, "print the file of a model or a tool")
    path.add_argument("name", help="of a model, of its .gguf file, or of a tool: llama-quantize")
    render = add("render", _render, "print the prompt that a chat template makes", refused=2)
    render.add_argument(
        "--template",
        required=True,
        help="with-think, without-think, a .jinja or .gguf file, or a model's folder",
    )
    render.add_argument(
        "--messages", required=True, help='a file: a JSON list of {"role", "content"}'
    )
    render.add_argument("--tools", help="a JSON list of JSON schemas")
    render.add_argument(
        "--chat-template-kwargs",
        metavar="JSON",
        action="append",
        default=[],
        help="""variables of the template, as of llama-server: '{"enable_thinking": false}'""",
    )
    render.add_argument("--engine", default="jinja", help="jinja or transformers")
    render.add_argument("--no-generation-prompt", action="store_true", help="end after the last")
    render.add_argument("--json", action="store_true", help="one JSON object on stdout")
    inspect = add("inspect", _inspect, "show what a GGUF or a model's folder holds", refused=2)
    inspect.add_argument("file", help="a .gguf file, or a folder to check for its pad and stops")
    inspect.add_argument("--json", action="store_true", help="one JSON object on stdout")
    tokenize = add("tokenize", _tokenize, "split a text file into tokens", refused=2)
    tokenize.add_argument("--tokenizer", required=True, help="qwq-32b, a name, a GGUF or a folder")
    tokenize.add_argument("--engine", default="llama.cpp", help="llama.cpp or transformers")
    tokenize.add_argument("--file", required=True, type=Path, help="text in UTF-8")
    tokenize.add_argument(
        "--no-special", action="store_true", help="read <|im_end|> and its like as letters"
    )
    tokenize.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _fetch(args: argparse.Namespace) -> None:
    from ..models import fetch

    give(fetch(args.name))


def _import(args: argparse.Namespace) -> None:
    from ..models import import_local

    give(import_local(args.file, args.name))


def _path(args: argparse.Namespace) -> None:
    if args.name.startswith("llama-"):
        from ..llamacpp import tool

        give(tool(args.name))
    else:
        from ..models import model_path

        if Path(args.name).is_file() and not args.name.endswith(".gguf"):
            raise SettingError(
                f"{args.name} is no .gguf file; give a model's name, its file, or a tool's name, "
                "such as llama-quantize"
            )
        try:
            give(model_path(args.name))
        except FetchError as error:
            raise FetchError(f"{error} A tool's name begins with llama-.") from None


def _render(args: argparse.Namespace) -> None:
    from ..models import identify_template, read_conversation, read_specials, read_template, render
    from ..sampling import is_forced

    conversation = read_conversation(args.messages, args.tools, not args.no_generation_prompt)
    template = read_template(args.template, conversation.tools is not None)
    variables = {**read_specials(args.template), **_read_variables(args.chat_template_kwargs)}
    prompt = render(template, conversation, args.engine, variables)
    for name in ("bos_token", "eos_token"):
        if name in template and name not in variables:
            print(f"qwqlab: the template names {name}, which is left empty", file=sys.stderr)
    if args.json:
        values = {
            "prompt": prompt,
            "template": identify_template(template),
            "engine": args.engine,
            "forced": is_forced(prompt),
        }
        print(json.dumps(values))
    else:
        give(prompt, end="")


def _read_variables(texts: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in texts:
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise SettingError(
                f"--chat-template-kwargs {text[:40]!r} is no JSON object; write it as "
                """'{"enable_thinking": false}'"""
            )
        found.update(values)
    return found


def _inspect(args: argparse.Namespace) -> int:
    from .. import paths
    from ..models import model_path, read_description, show_description

    if paths.from_user(args.file).is_dir():
        from ..models import check_stops

        check = check_stops(args.file)
        print(json.dumps(check.to_dict()) if args.json else check.as_text())
        return 0 if check.ok else 1
    values = read_description(model_path(args.file))
    print(json.dumps(values) if args.json else show_description(values))
    return 0


def _tokenize(args: argparse.Namespace) -> None:
    from ..models import open_tokenizer

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
    from ..llamacpp import read_prompt

    text = read_prompt(path)
    if any("\ud800" <= letter < "\ue000" for letter in text):
        raise SettingError(f"{path} is not text in UTF-8; convert it first")
    return text
