"""Where things live: the one place that names a folder or a file of the lab.

Everything that the lab writes lies under `home()`, so that a checkout can be deleted and nothing
stays behind. What comes from a hub goes into the hub's own cache instead (see `fetch`).
"""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def from_user(text: str | os.PathLike[str]) -> Path:
    """A path that a person wrote, `~` expanded where there is such a home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def home() -> Path:
    """The folder that holds data/ and build/: `QWQLAB_HOME`, or else the checkout."""
    return from_user(os.environ.get("QWQLAB_HOME") or CHECKOUT).resolve()


def build_dir() -> Path:
    """What the set-up makes: llama.cpp's source and its build."""
    return home() / "build"


def models_dir() -> Path:
    """Model files that the lab fetched, imported or requantised."""
    return home() / "build" / "models"


def tokenizers_dir() -> Path:
    """Tokenizers that the lab built, a folder for each."""
    return home() / "build" / "tokenizers"


def runs_dir() -> Path:
    """Stores of runs and reports."""
    return home() / "build" / "runs"


def progress_dir() -> Path:
    """Which exercises were solved here, an empty file for each; `QWQLAB_PROGRESS` names another."""
    own = os.environ.get("QWQLAB_PROGRESS")
    return Path(own) if own else home() / "build" / "progress"


def data_dir() -> Path:
    """The data that ships with the lab: prompts and texts."""
    return CHECKOUT / "data"


def notebooks_dir() -> Path:
    """The notebooks, where JupyterLab opens them."""
    return CHECKOUT / "notebooks"


def kept_dir() -> Path:
    """What a reset puts aside. Not among the notebooks, which `make test` runs, all of them."""
    return CHECKOUT / "kept"
