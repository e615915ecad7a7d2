"""Where things live: the one module that names the lab's folders.

The lab writes only below `home()`, so that deleting the checkout leaves nothing behind. What comes
from a hub goes into the hub's own cache instead.
"""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def from_user(text: str | os.PathLike[str]) -> Path:
    """Return a path that a person wrote, with `~` expanded if there is such a home."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path's own raises if there is none


def home() -> Path:
    """Return the folder that holds build/: `QWQLAB_HOME`, or else the checkout."""
    return from_user(os.environ.get("QWQLAB_HOME") or CHECKOUT).resolve()


def build_dir() -> Path:
    """Return the folder of all that is made here: llama.cpp's source and build, models, runs."""
    return home() / "build"


def models_dir() -> Path:
    """Return the folder of model files that the lab fetched, imported or requantised."""
    return home() / "build" / "models"


def tokenizers_dir() -> Path:
    """Return the folder of tokenizers that the lab built, a folder for each."""
    return home() / "build" / "tokenizers"


def runs_dir() -> Path:
    """Return the folder of stores of runs, and of reports."""
    return home() / "build" / "runs"


def progress_dir() -> Path:
    """Return the folder that holds an empty file for each exercise that was solved here.

    `QWQLAB_PROGRESS` names another one.
    """
    own = os.environ.get("QWQLAB_PROGRESS")
    return Path(own) if own else home() / "build" / "progress"


def data_dir() -> Path:
    """Return the folder of data that ships with the lab: prompts and texts."""
    return CHECKOUT / "data"


def notebooks_dir() -> Path:
    """Return the folder of the notebooks, where JupyterLab opens them."""
    return CHECKOUT / "notebooks"


def kept_dir() -> Path:
    """Return the folder for what a reset keeps, outside of notebooks/, which `make test` runs."""
    return CHECKOUT / "kept"
