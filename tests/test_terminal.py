"""What strangers hide in names and texts reaches no terminal: every command shows it escaped."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import sys
from pathlib import Path

import pytest
from malformed import sound

from qwqlab.cli import main
from qwqlab.progress import escape_controls
from qwqlab.sampling import Engine

# A title, a colour, a carriage return, marks of direction, no width, half a pair, blanks, C1.
HOSTILE = "\x1b]0;owned\x07\x1b[31m\r\u202e\u2066\u200b\udcff\u3164\u2028\U000e0041\x9b1m\x7f"
GAME = f"import pygame\npygame.init()\nraise SystemError({HOSTILE!r})\n"
TEMPLATE = "{{ raise_exception(messages[0].content) }}"


def check_shown(text: str) -> None:
    """Fail if text holds what acts on a terminal, or nothing of the hostile one."""
    assert escape_controls(text) == text, ascii(text)
    assert r"\x1b]0;owned\x07" in text, text


def test_what_is_not_seen_is_escaped_and_what_is_seen_stays() -> None:
    assert escape_controls(HOSTILE) == ascii(HOSTILE)[1:-1]
    seen = "é 日本\u3000עברית नमस्ते ❤️ ½\n\tC:\\temp\u00a0x"
    assert escape_controls(seen) == seen


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the current one, with files that hold the hostile text, and one named so."""
    monkeypatch.chdir(tmp_path)
    Path("game.py").write_text(GAME)
    Path("t.jinja").write_text(TEMPLATE)
    Path("messages.json").write_text(json.dumps([{"role": "user", "content": HOSTILE}]))
    Path("text.txt").write_text("text")
    Path("config.json").write_text(json.dumps({"model_type": HOSTILE, HOSTILE: HOSTILE}))
    bare = HOSTILE.replace("\udcff", "")
    Path("m.gguf").write_bytes(sound(bare).build())
    return tmp_path


# `labels` is in test_finetune, with a tokenizer.
COMMANDS = [
    ["fetch", HOSTILE],
    ["import", HOSTILE],
    ["path", HOSTILE],
    ["render", "--template", "t.jinja", "--messages", "messages.json"],
    ["inspect", "m.gguf"],
    ["tokenize", "--file", "text.txt", "--tokenizer", HOSTILE],
    ["generate", "--prompt", "x", "--model", HOSTILE],
    ["grade", "game.py"],
    ["reproduce", "--quick", "--model", HOSTILE],
    ["export", HOSTILE, "runs.csv"],
    ["quant-error", HOSTILE],
    ["select", HOSTILE, "--extra-percent", "3"],
    ["evaluate", HOSTILE],
    ["audit", "config.json"],
    ["ledger", "config.json"],
    ["finetune", "--data", HOSTILE, "--steps", "1", "--out", "out"],
    ["export-adapter", HOSTILE, "--gguf", "x.gguf"],
    ["reset", HOSTILE],
    ["offline", "folder", "--pythons", HOSTILE],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_command_shows_what_a_stranger_wrote_escaped(
    command: list[str], written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(command)
    said = capsys.readouterr()
    check_shown(said.out + said.err)


def read_terminal(ours: int) -> str:
    """Return what was written to a terminal whose other end is closed, and close this one."""
    shown = b""
    # One read may give a part of it; after the last byte Linux raises EIO.
    with os.fdopen(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):
        while part := terminal.read(4096):
            shown += part
    return shown.decode().replace("\r\n", "\n")


def test_a_result_goes_whole_into_a_pipe_and_escaped_to_a_terminal(
    engine: Engine,
    written: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("shown.jinja").write_text("{{ messages[0].content }}")
    (escape,) = engine.model.tokenize("\x1b")
    generate = ["generate", "--prompt", "Hello", "-n", "3", "--temp", "0", "-l", f"{escape}+1000"]
    results = (
        (["render", "--template", "shown.jinja", "--messages", "messages.json"], HOSTILE),
        (generate, "\x1b\x1b\x1b\n"),
    )
    for command, result in results:
        assert main(command) == 0
        assert capsys.readouterr().out == result.replace("\udcff", "?")
        ours, theirs = pty.openpty()
        with os.fdopen(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            assert main(command) == 0
        assert read_terminal(ours) == escape_controls(result)
