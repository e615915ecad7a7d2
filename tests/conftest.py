"""What many tests share: the real embedded model, and llama.cpp's own programs as the oracle."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from lab_page import NO_BROWSER, find_chromium

from qwqlab import paths
from qwqlab.experiments import CHATML, LOADING
from qwqlab.llamacpp import Loading, tools
from qwqlab.models import catalog, requantize
from qwqlab.sampling import Engine

# llama-completion's last word on stderr, after the whole text went to stdout.
LAST_WORD = "graphs reused"


@pytest.fixture(autouse=True)
def no_safe_path() -> Iterator[None]:
    """Take back what a cluster's start sets for good: it changes what a kernel can import."""
    yield
    os.environ.pop("PYTHONSAFEPATH", None)


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The embedded model's file."""
    path = paths.models_dir() / catalog.EMBEDDED.filename
    if not path.is_file():
        pytest.fail(f"{path} is missing: run `make setup`")
    return path


@pytest.fixture(scope="session")
def llama_completion() -> Callable[[Sequence[str]], str]:
    """A function that runs llama-completion with these arguments and gives its stdout as text."""

    def run(args: Sequence[str]) -> str:
        for _ in range(3):
            done = tools.run_tool("llama-completion", args)
            # Its printing thread is not waited for at the end (llama.cpp #22142), so a text may
            # lack its tail; it is whole when what is printed after it arrived.
            if LAST_WORD in done.stderr:
                return done.stdout
        return pytest.fail(f"llama-completion lost the end of its output: {done.stderr[-200:]}")

    return run


@pytest.fixture(scope="session")
def lacking() -> Callable[[str], NoReturn]:
    """A function that skips a test for what is not on this machine, with the reason.

    In continuous integration (CI=true) everything must be there: what lacks is a failure.
    """

    def end(reason: str) -> NoReturn:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    return end


@pytest.fixture(scope="session")
def chromium(lacking: Callable[[str], NoReturn]) -> Path:
    """The browser that drives JupyterLab."""
    return find_chromium() or lacking(NO_BROWSER)


@pytest.fixture(scope="session")
def code_prompts() -> list[str]:
    """Prompts that ask for a short Python program, in ChatML."""
    return [
        CHATML.format(f"Write a Python function that {task}.")
        for task in ("reverses a string", "adds the digits of a number", "sorts words by length")
    ]


@pytest.fixture(scope="session")
def code_prompt(code_prompts: list[str]) -> str:
    """One of them."""
    return code_prompts[0]


@pytest.fixture(scope="session")
def engine(model_path: Path) -> Iterator[Engine]:
    """The embedded model with llama.cpp's own defaults."""
    with Engine(model_path) as engine:
        yield engine


PLAIN_ATTENTION = Loading(device="none", flash_attn="off")


@pytest.fixture(
    scope="session",
    params=[
        pytest.param((PLAIN_ATTENTION, "Q4_1"), id="Q4_1-fa-off", marks=pytest.mark.nightly),
        pytest.param((LOADING, "Q8_0"), id="Q8_0-fa-on"),
    ],
)
def batch_engine(model_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A model of an integer type, with an attention that does not depend on the batch."""
    loading, quant = request.param
    with Engine(requantize(model_path, quant), loading) as engine:
        yield engine


@pytest.fixture(scope="session")
def float_engine(model_path: Path) -> Iterator[Engine]:
    """A 16-bit copy, whose arithmetic depends on the width of the batch."""
    with Engine(requantize(model_path, "F16"), Loading(flash_attn="off")) as engine:
        yield engine


@pytest.fixture(scope="session")
def llama_completion_help() -> dict[str, str]:
    """llama-completion's help, by flag: the text that stands beside it."""
    text = tools.run_tool("llama-completion", ["--help"]).stdout
    entries: dict[str, str] = {}
    flags: list[str] = []
    for line in text.splitlines():
        if line.startswith("-"):
            head = re.match(r"(-\S+,?\s+(?:\S+,\s*)*)+", line)
            flags = re.findall(r"(?<!\S)(--?[a-z][\w-]*)", head[0] if head else line)
            entries.update(dict.fromkeys(flags, ""))
        for flag in flags:
            entries[flag] += line.strip() + " "
    return entries


@pytest.fixture(scope="session")
def llama_tokenize(model_path: Path) -> Callable[[str], list[int]]:
    """A function that gives the token ids which llama-tokenize makes of a text with escapes."""

    def run(text: str) -> list[int]:
        args = ["-m", str(model_path), "-p", text, "--ids", "--log-disable"]
        return [int(number) for number in json.loads(tools.run_tool("llama-tokenize", args).stdout)]

    return run
