"""The files of a model as an engine loaded them, and whether they are still the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import ModelFileError

# A smaller model is read into memory. A larger one is mapped: if a program then shortens its file
# (`cp` over it does), the system ends the process that reads on.
READ_WHOLE = 1 << 30


class ModelFiles:
    """What is known of files before a model is loaded from them.

    mapped: whether llama.cpp should map them rather than read them into memory.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._stamps = {file: _stamp(file) for file in files}
        self.mapped = sum(stamp[2] for stamp in self._stamps.values() if stamp) > READ_WHOLE

    def check(self) -> None:
        """ModelFileError if one of them is no longer what it was."""
        for file, before in self._stamps.items():
            now = _stamp(file)
            if now != before:
                what = "was changed or replaced" if now else "is gone"
                raise ModelFileError(
                    f"{file} {what} since the engine loaded it; put it back, or open the engine "
                    "anew."
                )


def _stamp(file: Path) -> tuple[int, ...]:
    """Numbers of which one changes when the file does; none of a file that is not there.

    Not the ctime, which a second name for the file changes too.
    """
    try:
        stat = file.stat()
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
