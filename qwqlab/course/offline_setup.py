"""Set a machine up from the folder that `make offline` built, with no network.

    python3 offline_setup.py FOLDER           puts the folder's files into build/ of this checkout
    python3 offline_setup.py FOLDER TARGET    unpacks the folder's checkout as TARGET, if it is new

Runs before there is an environment, as preflight does: the standard library alone, and the syntax
of Python 3.6. The hashes find what a copy or a stick has damaged; they are no signature.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any, Dict, List, Tuple

MANIFEST = "SHA256SUMS"  # written last, so that a folder without it is not finished
ABOUT = "folder.json"
CHECKOUT = "checkout.tar.gz"
REBUILD = "run `make offline` again where there is a network"


class Refusal(Exception):
    """Why nothing is set up from this folder, in one sentence."""


def name_platform() -> str:
    """What compiled wheels are made for, such as "Linux x86_64"."""
    return "{} {}".format(platform.system(), platform.machine())


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest(folder: Path) -> Dict[str, str]:
    """The sha256 of each file of the folder by its path there; Refusal if it is not finished."""
    try:
        lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
        hashes = {name: sha256 for sha256, name in (line.split("  ", 1) for line in lines)}
    except (FileNotFoundError, NotADirectoryError, ValueError):
        hashes = {}
    if ABOUT not in hashes or any(".." in Path(name).parts for name in hashes):
        raise Refusal("{} is no finished folder of `make offline`: {}.".format(folder, REBUILD))
    return hashes


def check_files(folder: Path, names: List[str]) -> None:
    """Refusal that names the first of these files that is missing or is not as it was written."""
    hashes = read_manifest(folder)
    for name in names:
        path = folder / name
        fault = "missing" if not path.is_file() else ""
        if not fault and sha256_of(path) != hashes.get(name):
            fault = "damaged"
        if fault:
            raise Refusal("{} is {}: copy the folder again, or {}.".format(path, fault, REBUILD))


def check_machine(about: Dict[str, Any], version: Tuple[int, int] = sys.version_info[:2]) -> None:
    """Refusal if the folder's wheels are not for this system, its C library or this Python."""
    if about["platform"] != name_platform():
        raise Refusal(
            "The folder is for {} and this is {}: build one on a machine like this one.".format(
                about["platform"], name_platform()
            )
        )
    libc, found = platform.libc_ver()
    if about["glibc"] and not (libc == "glibc" and _numbers(found) >= about["glibc"]):
        raise Refusal(
            "The folder's packages need glibc {} and this is {}: take a newer system.".format(
                ".".join(map(str, about["glibc"])), " ".join((libc, found)).strip() or "another"
            )
        )
    python = "{}.{}".format(*version)
    if python in about["pythons"]:
        return
    others = ["python" + one for one in about["pythons"]]
    here = [one for one in others if shutil.which(one)]
    raise Refusal(
        "The folder is for Python {} and {} is {}: {}PYTHON={} before the command.".format(
            ", ".join(about["pythons"]),
            sys.executable,
            python,
            "put " if here else "install that and put ",
            (here or others)[0],
        )
    )


def _numbers(version: str) -> List[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def unpack_checkout(folder: Path, target: Path) -> None:
    """Unpack the checkout as `target`, whole or not at all; one that is there is left as it is."""
    if (target / "qwqlab" / "course" / "offline_setup.py").is_file():
        print("{} is there and stays as it is.".format(target))
        return
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise Refusal(
            "{} is there and is no checkout of qwqlab: name another place.".format(target)
        )
    check_files(folder, [CHECKOUT])
    partial = target.with_name(".{}.part".format(target.name))
    shutil.rmtree(str(partial), ignore_errors=True)
    partial.mkdir(parents=True)
    with tarfile.open(str(folder / CHECKOUT)) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(str(partial), filter="data")
        else:  # older Pythons; the hash has vouched for the content
            archive.extractall(str(partial))
    partial.replace(target)
    print("Unpacked the checkout as {}.".format(target))


def place_files(folder: Path, checkout: Path) -> None:
    """Check every file of the folder, and copy what belongs into build/ there, if it is not there.

    build/ lies in the checkout, or in QWQLAB_HOME.
    """
    pins = sha256_of(checkout / "constraints.txt")
    if pins != json.loads((folder / ABOUT).read_text(encoding="utf-8"))["pins"]:
        raise Refusal(
            "{} wants other versions than {} holds: `sh {}/set-up.sh NEW-PLACE` sets up the "
            "checkout that belongs to it, or {}.".format(checkout, folder, folder, REBUILD)
        )
    print("Checking the hashes of {} ...".format(folder), flush=True)
    hashes = read_manifest(folder)
    check_files(folder, list(hashes))
    home = Path(os.environ.get("QWQLAB_HOME", str(checkout))).expanduser()
    for name in sorted(name for name in hashes if name.startswith("build/")):
        goal = home / name
        if goal.is_file() and sha256_of(goal) == hashes[name]:
            continue
        partial = goal.with_name(".{}.part".format(goal.name))
        try:
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(folder / name), str(partial))
            partial.replace(goal)
        except OSError as error:
            raise Refusal(
                "{} cannot be written ({}): make room, or set QWQLAB_HOME to another disk.".format(
                    goal, error.strerror
                )
            ) from error


def main(arguments: List[str]) -> int:
    """Do what the arguments ask for; 1, and a sentence on stderr, when that cannot be."""
    folder = Path(arguments[0])
    try:
        check_files(folder, [ABOUT])
        check_machine(json.loads((folder / ABOUT).read_text(encoding="utf-8")))
        if len(arguments) > 1:
            unpack_checkout(folder, Path(arguments[1]))
        else:
            place_files(folder, Path(__file__).resolve().parents[2])
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename2 or error.filename or folder
        print("{} cannot be read or written: {}.".format(where, error.strerror), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
