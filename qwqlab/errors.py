"""The few ways in which the lab says no: one sentence, which names the value and the remedy."""

from __future__ import annotations


class QwqlabError(Exception):
    """Base of every error that the lab raises on purpose."""


class SettingError(QwqlabError, ValueError):
    """A sampling number, a sampler name or a flag that llama.cpp could not use as it stands."""


class ModelFileError(QwqlabError, ValueError):
    """A file that is not a GGUF, is cut short or malformed, or is not one that llama.cpp knows."""


class FetchError(QwqlabError, OSError):
    """A file that could not be brought here: network, access, disk or a hash that differs."""


class FileError(QwqlabError, OSError):
    """A file or folder that could not be written: a full disk, or the rights to it."""


class ToolchainError(QwqlabError, RuntimeError):
    """llama.cpp could not be found, built or run."""


class ContextError(QwqlabError, ValueError):
    """A prompt and its continuation that do not fit the context."""


class BusyError(QwqlabError, RuntimeError):
    """An engine, or a panel, that is at work already."""


class ClosedError(QwqlabError, RuntimeError):
    """An engine that was closed, or something that belonged to it."""


class StoreError(QwqlabError, RuntimeError):
    """A store of runs that cannot be opened or read."""


class ClusterError(QwqlabError, RuntimeError):
    """A cluster that cannot be reached, or whose workers are gone or not of one kind."""


class SandboxError(QwqlabError, RuntimeError):
    """A program that can't be confined here as well as was asked, so that it was not run."""


class ChatError(QwqlabError, ValueError):
    """A chat template, or a conversation, that cannot be rendered."""


class ResetError(QwqlabError, RuntimeError):
    """Notebooks that cannot be put back as they came."""


def first_lines(error: BaseException) -> str:
    r"""What an error of another library says, cut to what fits into a sentence of the lab's.

    >>> first_lines(ValueError("Validation error for 'x':\n    'x' is no number\nmore"))
    "Validation error for 'x': 'x' is no number"
    >>> first_lines(KeyError())
    'KeyError'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2] if lines else [type(error).__name__])[:200]
