"""The commands that look after the lab itself: doctor, reset and offline."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add doctor, reset and offline to the parser."""
    doctor = add("doctor", _doctor, "check all that the lab needs; exit with 1 if something fails")
    doctor.add_argument("--json", action="store_true", help="one JSON object on stdout")
    reset = add(
        "reset",
        _reset,
        "put notebooks back as they came, and keep what you wrote in kept/ (outputs alone are not "
        "kept); save in JupyterLab first",
    )
    reset.add_argument("notebooks", nargs="*", help="such as 03; without a name, all that changed")
    reset.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="ARCHIVE",
        help="a .zip, .tar or folder of the lab, where there is no git",
    )
    reset.add_argument(
        "--progress",
        action="store_true",
        help="also forget which exercises were solved, in all notebooks: for the next reader",
    )
    offline = add("offline", _offline, "build a folder for machines without a network")
    offline.add_argument("folder", type=Path)
    offline.add_argument("--extras", default="", help="more than train, such as 'dev unsloth'")
    offline.add_argument("--pythons", default="", help="such as 'python3.11 python3.12'")


def _doctor(args: argparse.Namespace) -> int:
    from ..course import checks_to_dict, report_checks, run_checks

    checks = run_checks()
    print(json.dumps(checks_to_dict(checks)) if args.json else report_checks(checks))
    return 0 if all(check.ok for check in checks) else 1


def _reset(args: argparse.Namespace) -> None:
    from ..course import forget_progress, reset_notebooks

    done = reset_notebooks(args.notebooks, args.source)
    if done:
        print(*done, sep="\n")
        print("One that is open in JupyterLab: File, Reload Notebook from Disk.", file=sys.stderr)
    else:
        print("Nothing to reset: the notebooks are as they came.")
    if args.progress:
        print(f"Exercises marked as solved, and no longer: {forget_progress()}.")


def _offline(args: argparse.Namespace) -> None:
    from ..course import build_folder

    build_folder(args.folder, args.extras.split(), args.pythons.split())
