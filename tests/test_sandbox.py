"""What hostile programs can't do in the sandbox, and what its report says of itself."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from hostile import HOSTILE, SECRET

from qwqlab.box import Limits
from qwqlab.errors import SandboxError
from qwqlab.isolation import describe
from qwqlab.paths import CHECKOUT
from qwqlab.sandbox import Outcome, probe, run_python

SHORT = Limits(seconds=3, cpu_seconds=2, memory_bytes=256 << 20, folder_bytes=48 << 20)


@pytest.fixture(scope="module", autouse=True)
def strong(lacking: Callable[[str], NoReturn]) -> None:
    """These tests are about the strong level; elsewhere they can show nothing."""
    if probe().level != "strong":
        lacking(f"this machine confines programs only to the level {probe().level}")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "kept").write_text("kept", encoding="utf-8")
    return tmp_path


def list_boxes() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("qwqlab-box-*")}


def find_processes(mark: str) -> list[str]:
    """Command lines that hold a mark: the box's folder stands in that of every confined process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if mark in line:
            found.append(line)
    return found


@pytest.mark.parametrize(("name", "source", "sign"), HOSTILE, ids=[case[0] for case in HOSTILE])
def test_a_hostile_program_leaves_no_process_no_file_and_a_clear_verdict(
    name, source, sign, place, monkeypatch
):
    monkeypatch.setenv("QWQLAB_SECRET", SECRET)
    before = list_boxes()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.01)
        source = source.replace("PLACE", str(place)).replace("PORT", str(server.getsockname()[1]))
        outcome = run_python({"main.py": source}, "main.py", args=[f"mark-{name}"], limits=SHORT)
        with pytest.raises(TimeoutError):
            server.accept()
    last = outcome.stderr.strip().splitlines()[-1:] or [""]
    said = outcome.ended if outcome.ended == "killed" else last[0]
    assert any(word in said for word in sign.split(" or ")), (outcome.reason, outcome.stderr[-500:])
    assert outcome.reason and outcome.status != 0
    assert len(outcome.stdout) <= SHORT.output_bytes and len(outcome.stderr) <= SHORT.output_bytes
    assert not find_processes(f"mark-{name}")
    assert list_boxes() <= before
    assert [path.name for path in place.iterdir()] == ["kept"]
    assert (place / "kept").read_text() == "kept"
    assert (place / "kept").stat().st_mode & 0o777 != 0o777 and (place / "kept").stat().st_mtime > 1
    assert not [*Path(tempfile.gettempdir()).glob("qwqlab-x")]
    assert "magic" not in outcome.isolation.applied


def test_plain_programs_run_as_ever():
    source = (
        "import sys, threading, random, tempfile, numpy\n"
        "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
        "open('made.txt', 'w').write('made')\n"
        "print(numpy.arange(3).sum(), sys.argv[1], tempfile.gettempdir() in sys.path)\n"
    )
    outcome = run_python({"main.py": source}, "main.py", args=["word"])
    assert (outcome.ended, outcome.status, outcome.stderr) == ("exited", 0, "")
    assert outcome.stdout.splitlines() == ["thread", "3 word True"]
    assert outcome.files == {"made.txt": b"made"}


def test_an_outcome_says_why_a_program_ended():
    def reason(source: str, limits: Limits = SHORT) -> str:
        return run_python({"main.py": source}, "main.py", limits=limits).reason

    assert reason("raise SystemExit(3)") == "exited with status 3"
    assert reason("while True: pass") == "killed by SIGXCPU: it used up its CPU time"
    assert (
        reason("import time; time.sleep(9)", Limits(seconds=1)) == "killed after 1 s of wall clock"
    )
    assert "1,048,576 bytes" in reason("while True: print('x' * 9999)")
    assert reason("import os; os.kill(os.getpid(), 9)") == "killed by SIGKILL"


def test_the_report_names_what_holds_in_plain_words():
    isolation = probe()
    assert isolation.level == "strong"
    assert {"own session", "rlimits", "landlock", "seccomp"} <= set(isolation.applied)
    assert isolation.network.startswith("none")
    assert isolation.to_dict()["applied"] == list(isolation.applied)


@pytest.mark.parametrize(
    ("applied", "level"),
    [
        ((), "weak"),
        (("rlimits",), "weak"),
        (("rlimits", "namespaces"), "partial"),
        (("rlimits", "landlock"), "partial"),
        (("landlock", "seccomp"), "partial"),
        (("rlimits", "landlock", "seccomp"), "strong"),
    ],
)
def test_the_level_is_what_the_layers_hold(applied, level):
    assert describe(applied).level == level
    assert ("not held" in describe(applied).filesystem) == ("landlock" not in applied)


LAYERS = [
    ("landlock", "print(open('/etc/passwd').read()[:4])", "root"),
    ("seccomp", "import os\nprint(os.fork() >= 0)", "True"),
    ("rlimits", "x = bytearray(300 << 20)\nprint('had')", "had"),
]


@pytest.mark.parametrize(("layer", "source", "sign"), LAYERS, ids=[case[0] for case in LAYERS])
def test_without_a_layer_its_attack_succeeds_and_the_program_is_refused(layer, source, sign):
    files = {"main.py": source}
    with pytest.raises(SandboxError, match=f"only to the level partial.*{layer}"):
        run_python(files, "main.py", without=[layer])
    outcome = run_python(files, "main.py", without=[layer], minimum="weak", limits=SHORT)
    assert sign in outcome.stdout
    assert outcome.isolation.level == "partial" and layer not in outcome.isolation.applied


def test_a_refused_program_has_not_run(place):
    source = f"open({str(place / 'x')!r}, 'w')\n"
    with pytest.raises(SandboxError, match="accept the level weak"):
        run_python({"main.py": source}, "main.py", without=["landlock", "seccomp", "namespaces"])
    assert not (place / "x").exists()
    assert isinstance(run_python({"main.py": "pass"}, "main.py", minimum="weak"), Outcome)


def test_with_no_filter_what_a_program_starts_ends_with_it():
    source = "import os, sys, time\nif os.fork() == 0:\n os.setsid()\n time.sleep(1000)\n"
    if "namespaces" not in probe().applied:
        pytest.skip("user namespaces are closed here")
    run_python({"main.py": source}, "main.py", args=["mark-orphan"], without=["seccomp"],
               minimum="weak", limits=SHORT)  # fmt: skip
    assert not find_processes("mark-orphan")


def test_an_unknown_level_is_an_error():
    with pytest.raises(SandboxError, match="'iron' is no level"):
        run_python({"main.py": ""}, "main.py", minimum="iron")


@pytest.mark.parametrize("user", ["in a namespace", "nobody"])
def test_it_works_for_an_ordinary_user(user, tmp_path, lacking):
    code = (
        "from qwqlab.sandbox import probe, run_python\n"
        "import os\n"
        "said = run_python({'main.py': 'open(\"/etc/passwd\")'}, 'main.py')\n"
        "print(os.getuid(), probe().level, 'PermissionError' in said.stderr)\n"
    )
    if os.getuid() != 0:
        prefix, uid = [], str(os.getuid())
    elif user == "nobody":
        prefix, uid = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], "65534"
        prefix += ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "env"]
        reaches = subprocess.run([*prefix, sys.executable, "-c", ""], capture_output=True)
        if reaches.returncode:
            pytest.skip("this Python lies where nobody can't reach it")
    else:
        prefix, uid = ["unshare", "--user", "--map-user=1000", "--map-group=1000"], "1000"
    if prefix and not shutil.which(prefix[0]):
        lacking(f"{prefix[0]} is not here")
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "PYTHONPATH": str(CHECKOUT)}
    tmp_path.chmod(0o777)
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == [uid, "strong", "True"], done.stderr


def test_a_run_ends_even_when_the_lab_is_killed(tmp_path):
    code = (
        "from qwqlab.sandbox import Limits, run_python\n"
        "run_python({'main.py': 'import time; time.sleep(1000)'}, 'main.py', args=['mark-alone'],"
        " limits=Limits(seconds=500))\n"
    )
    lab = subprocess.Popen([sys.executable, "-c", code])
    while not find_processes('main.py", "args": ["mark-alone'):
        assert lab.poll() is None
    lab.kill()
    lab.wait()
    try:
        lines = [line for line in find_processes("mark-alone") if "timeout" in line]
        assert any("--signal=KILL 515" in line for line in lines), lines
    finally:
        subprocess.run(["pkill", "-9", "-f", "mark-alone"], check=False)
