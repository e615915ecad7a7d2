"""Ask a Python of its own for a JSON object, so that what crashes or hangs there ends only it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .. import paths
from ..errors import ToolchainError
from ..errors import explain_exit

PATIENCE = 120.0
"""Seconds, for a machine that is busy with something else; each question takes about two."""


def ask_python(
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> dict[str, Any]:
    """The JSON object in the last line that this environment's Python prints, run so.

    environment: variables that differ from this process's. ToolchainError with the last line of
    its stderr when it fails, or a sentence when it takes longer or prints no such line.

    >>> ask_python(["-c", "print('{\\"here\\": 1}')"])
    {'here': 1}
    """
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            cwd=paths.CHECKOUT,
            env={**os.environ, **(environment or {})},
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"no answer within {patience:g} seconds") from error
    except OSError as error:
        raise ToolchainError(f"{sys.executable} does not start: {error.strerror}") from error
    if done.returncode < 0:
        raise ToolchainError(f"it {explain_exit(done.returncode)}")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [explain_exit(done.returncode)])[-1]
        raise ToolchainError(last.strip()[:300])
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        found = None
    if not isinstance(found, dict):
        raise ToolchainError("it printed no answer")
    return found
