"""The errors that the lab raises: each is one sentence, which names the value and the remedy.

The functions below shorten what another program or library wrote of its own failure.
"""

from __future__ import annotations

import re


class QwqlabError(Exception):
    """Base of every error that the lab raises on purpose."""


class SettingError(QwqlabError, ValueError):
    """A sampling number, a sampler name or a flag that llama.cpp cannot use."""


class ModelFileError(QwqlabError, ValueError):
    """A file that is not a GGUF, is cut short or malformed, or is not one that llama.cpp knows."""


class FetchError(QwqlabError, OSError):
    """A file that could not be fetched: network, access, disk or a hash that differs."""


class FileError(QwqlabError, OSError):
    """A file or folder that could not be written: a full disk, or the rights to it."""


class ToolchainError(QwqlabError, RuntimeError):
    """llama.cpp could not be found, built or run."""


class ContextError(QwqlabError, ValueError):
    """A prompt and its continuation that do not fit the context."""


class BusyError(QwqlabError, RuntimeError):
    """An engine, or a panel, that is already running something."""


class ClosedError(QwqlabError, RuntimeError):
    """An engine that was closed, or something that belonged to it."""


class StoreError(QwqlabError, RuntimeError):
    """A store of runs that cannot be opened or read."""


class ClusterError(QwqlabError, RuntimeError):
    """A cluster that cannot be reached, or whose workers are gone or not of one kind."""


class SandboxError(QwqlabError, RuntimeError):
    """A program that was not run, since it cannot be isolated here as well as was asked."""


class ChatError(QwqlabError, ValueError):
    """A chat template, or a conversation, that cannot be rendered.

    place: which of several conversations a template refuses, if it is one of them.
    """

    place: int | None = None


class ResetError(QwqlabError, RuntimeError):
    """Notebooks that cannot be reset."""


def first_lines(error: BaseException) -> str:
    r"""Return the first two lines of another library's error as one line.

    >>> first_lines(ValueError("Validation error for 'x':\n    'x' is no number\nmore"))
    "Validation error for 'x': 'x' is no number"
    >>> first_lines(KeyError())
    'KeyError'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[:2] if lines else [type(error).__name__])
    return said if len(said) <= 200 else said[:200].rpartition(" ")[0] + " ..."


def last_lines(text: str, count: int = 3) -> str:
    """Return the last lines of a log that are not empty, without the logger's clock and level."""
    lines = [re.sub(r"^[\d.]+ [A-Z] ", "", line.strip()) for line in text.splitlines()]
    return " / ".join([line for line in lines if line][-count:])


def explain_exit(returncode: int) -> str:
    """Return how a program ended, in words.

    >>> explain_exit(1), explain_exit(-9)
    ('failed with exit code 1', 'was killed by signal 9, perhaps for want of memory')
    """
    if returncode == -9:
        return "was killed by signal 9, perhaps for want of memory"
    if returncode < 0:
        return f"was killed by signal {-returncode}"
    return f"failed with exit code {returncode}"
