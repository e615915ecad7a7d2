"""Stored runs as a pandas DataFrame, as CSV for a spreadsheet, as JSON for a program."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files

if TYPE_CHECKING:
    import pandas as pd

    from .stored import StoredRun

# A spreadsheet runs a cell that begins so as a formula, and what a model wrote is untrusted.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def flatten(stored: StoredRun) -> dict[str, Any]:
    """One run as a flat row: what was asked, each sampling number, each metric, the text.

    Lists (the samplers) are joined by ";"; token ids, ranks and escapes stay in the store.
    """
    request, run = stored.run.request, stored.run
    sampling = {
        name: ";".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        for name, value in request.sampling.to_dict().items()
    }
    return {
        "experiment": stored.experiment,
        "label": stored.label,
        "key": stored.key,
        "model": stored.model,
        "model_sha256": stored.model_sha256,
        "build": stored.build,
        "settings": json.dumps(stored.settings, sort_keys=True),
        "started_at": stored.started_at,
        "seed": request.seed,
        "n_predict": request.n_predict,
        **sampling,
        "n_prompt": run.n_prompt,
        "stop": run.stop,
        "seconds": run.seconds,
        "escapes": len(run.escapes),
        **stored.metrics.to_dict(),
        "command": stored.command,
        "prompt": request.prompt,
        "text": run.text,
    }


def make_frame(runs: Iterable[StoredRun]) -> pd.DataFrame:
    """A DataFrame with one row a run (see `flatten` for its columns)."""
    import pandas as pd

    return pd.DataFrame([flatten(stored) for stored in runs])


def write_csv(runs: Iterable[StoredRun], path: Path) -> Path:
    """Write one row a run, in UTF-8, whole or not at all.

    For reading in a spreadsheet, not for exact copies: a text that a spreadsheet would take for a
    formula gets a ' in front, a NUL becomes \\x00, and half a surrogate pair its escape \\ud800.
    JSON and the store itself keep every text as it is.
    """
    with files.replacing_text(path, "backslashreplace") as out:
        writer: Any = None
        for stored in runs:
            row = {name: _make_safe(value) for name, value in flatten(stored).items()}
            if writer is None:
                writer = csv.DictWriter(out, fieldnames=list(row), extrasaction="ignore")
                writer.writeheader()
            writer.writerow(row)
    return path


def write_json(runs: Iterable[StoredRun], path: Path) -> Path:
    """Write every run whole, as a list of `StoredRun.to_dict`, in ASCII, whole or not at all."""
    with files.replacing_text(path, "backslashreplace") as out:
        separator = "[\n"
        for stored in runs:
            out.write(separator + json.dumps(stored.to_dict()))
            separator = ",\n"
        out.write("[]\n" if separator == "[\n" else "\n]\n")
    return path


def _make_safe(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    value = value.replace("\0", "\\x00")
    return f"'{value}" if value.lstrip(" ").startswith(FORMULA_STARTS) else value
